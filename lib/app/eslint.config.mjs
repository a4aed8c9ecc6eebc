import js from "@eslint/js";
import globals from "globals";

const rules = {
  ...js.configs.recommended.rules,
  eqeqeq: "error",
  "no-shadow": "error",
  "no-var": "error",
  "prefer-const": "error",
  "no-console": ["error", { allow: ["error"] }],
};

export default [
  { ignores: ["node_modules/"] },
  { files: ["*.js"], languageOptions: { globals: globals.browser }, rules },
  { files: ["sw.js"], languageOptions: { globals: globals.serviceworker } },
];

/** Something that went wrong, as a sentence for people. */
export class Problem extends Error {}

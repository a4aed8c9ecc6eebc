// Keeps the page for use without a network. files.js, written by the build, lists its files and their version: a build
// with another file makes another files.js, which is when browsers fetch all of them again.
importScripts("files.js");

const CACHE = `app-${self.VERSION}`;

self.addEventListener("install", (event) => {
  const keep = async () => (await caches.open(CACHE)).addAll(self.FILES);
  event.waitUntil(keep().then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  const drop = async () => {
    for (const name of await caches.keys()) if (name.startsWith("app-") && name !== CACHE) await caches.delete(name);
  };
  event.waitUntil(drop().then(() => self.clients.claim()));
});

self.addEventListener("fetch", (event) => {
  const answer = async () => {
    const cache = await caches.open(CACHE);
    return (
      (await cache.match(event.request, { ignoreSearch: event.request.mode === "navigate" })) ?? fetch(event.request)
    );
  };
  if (event.request.method === "GET") event.respondWith(answer());
});

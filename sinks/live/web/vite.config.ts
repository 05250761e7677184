import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";

// In development the page comes from vite and everything under /api from a running hub (or its demo).
const api = process.env["HITSTREAM_API"] ?? "http://127.0.0.1:8080";

export default defineConfig({
  // Relative addresses: the page works under any path a proxy gives it.
  base: "./",
  plugins: [svelte()],
  server: { host: "127.0.0.1", proxy: { "/api": { target: api, changeOrigin: true } } },
  build: {
    target: ["chrome123", "edge123", "firefox121", "safari17.5"],
    // The hub's policy is `default-src 'self'`: nothing may be inlined as a data address.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  test: { include: ["test/**/*.test.ts"], environment: "node" },
});

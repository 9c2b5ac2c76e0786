import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

const edge = process.env.RUNCAST_URL ?? "http://127.0.0.1:8080";

export default defineConfig({
  base: "./",
  plugins: [react()],
  // The client is a folder of this repository, linked: it must use the React of this application.
  resolve: { dedupe: ["react", "react-dom", "zustand"] },
  // One origin for the page and the edge, as behind a load balancer.
  server: { proxy: { "/api": edge } },
  preview: { proxy: { "/api": edge } },
});

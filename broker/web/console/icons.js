/** Icons as paths on a 24 grid, drawn with the current colour. */

import { svg } from "./dom.js";

const PATHS = {
  add: ["M12 5v14M5 12h14"],
  again: [
    "M4 12a8 8 0 0 1 13.700-5.600L20 8.500",
    "M20 4v4.500h-4.500",
    "M20 12a8 8 0 0 1-13.700 5.600L4 15.500",
    "M4 20v-4.500h4.500",
  ],
  arrow: ["M5 12h14M13.500 7l5.500 5-5.500 5"],
  arrowDown: ["M12 5v14M6 13l6 6 6-6"],
  back: ["M19 12H5M11 6l-6 6 6 6"],
  bell: ["M6 16.500V11a6 6 0 0 1 12 0v5.500l1.500 1.500h-15z", "M10 20.500h4"],
  bellOff: ["M6 16.500V11a6 6 0 0 1 12 0v5.500l1.500 1.500h-15z", "M10 20.500h4M4 4l16 16"],
  bolt: ["M13 3L5.500 13.500H11L10 21l8-11h-5.500z"],
  book: ["M5 4.500h10a3 3 0 0 1 3 3V20H8a3 3 0 0 1-3-3z", "M5 17a3 3 0 0 1 3-3h10"],
  check: ["M5 12.500l4.500 4.500L19 7.500"],
  checkCircle: ["M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z", "M8.500 12.300l2.400 2.400 4.600-5"],
  chevron: ["M9 6l6 6-6 6"],
  clock: ["M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z", "M12 7.500V12l3 2"],
  columns: ["M4 5h16v14H4z", "M12 5v14"],
  copy: ["M9 9h11v11H9z", "M5 15H4V4h11v1"],
  cross: ["M6 6l12 12M18 6L6 18"],
  crossCircle: ["M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z", "M9 9l6 6M15 9l-6 6"],
  dash: ["M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z", "M8.500 12h7"],
  document: ["M6 3h8l4 4v14H6z", "M14 3v4h4M9 12h6M9 16h6"],
  download: ["M12 4v11M7 11l5 5 5-5M5 20h14"],
  flag: ["M6 21V4h11l-2 4 2 4H6"],
  gauge: ["M4 17a8.500 8.500 0 1 1 16 0", "M12 16l4-5"],
  history: ["M4 12a8 8 0 1 0 2.600-5.900L4 8.500", "M4 4v4.500h4.500", "M12 8v4l2.500 1.800"],
  info: ["M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z", "M12 11v5M12 8v.01"],
  key: ["M14.500 4a5.500 5.500 0 1 0 0 11 5.500 5.500 0 0 0 0-11z", "M10.500 13.500L4 20v-3M7 17l2 2"],
  keyboard: ["M3 7h18v11H3z", "M7 11v.01M11 11v.01M15 11v.01M8 14.500h8"],
  layers: ["M12 4l8.500 4.500L12 13 3.500 8.500z", "M3.500 13L12 17.500 20.500 13"],
  minus: ["M5 12h14"],
  link: [
    "M10 14a4 4 0 0 0 6 .4l3-3a4 4 0 0 0-5.700-5.700l-1.500 1.500",
    "M14 10a4 4 0 0 0-6-.4l-3 3a4 4 0 0 0 5.700 5.700l1.500-1.500",
  ],
  menu: ["M5.500 12a.5.500 0 1 0 .01 0zM12 12a.5.500 0 1 0 .01 0zM18.500 12a.5.500 0 1 0 .01 0z"],
  message: ["M4 5h16v11H11l-4.500 4v-4H4z"],
  moon: ["M19.500 14A8 8 0 0 1 10 4.500a8 8 0 1 0 9.500 9.500z"],
  panel: ["M4 5h16v14H4z", "M14.500 5v14"],
  share: ["M12 15V4M8 7.500l4-4 4 4", "M5 12v8h14v-8"],
  snow: ["M12 3v18M4.2 7.5l15.6 9M4.2 16.5l15.6-9", "M9.500 4.500L12 7l2.500-2.500M9.500 19.500L12 17l2.500 2.500"],
  pen: ["M4 20l1-4L16 5l3 3L8 19z", "M13.500 7.500l3 3"],
  play: ["M8 5.500v13l10-6.500z"],
  pulse: ["M3 12h4l2.500-6 4.500 12 2.500-6H21"],
  question: [
    "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z",
    "M9.700 9.500a2.400 2.400 0 1 1 3.400 2.200c-.8.4-1.100.9-1.100 1.800M12 16.600v.01",
  ],
  search: ["M11 5a6 6 0 1 0 0 12 6 6 0 0 0 0-12z", "M15.500 15.500L20 20"],
  shield: ["M12 3.500l7 2.500v5.500c0 4.500-3 7.300-7 9-4-1.700-7-4.500-7-9V6z"],
  signOut: ["M10 4H5v16h5M15 8l4 4-4 4M19 12H9"],
  spark: [
    "M12 4v4M12 16v4M4 12h4M16 12h4M6.500 6.500l2.500 2.500M15 15l2.500 2.500M17.500 6.500L15 9M9 15l-2.500 2.500",
  ],
  stop: ["M7 7h10v10H7z"],
  sun: [
    "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8z",
    "M12 2.500v2M12 19.500v2M2.500 12h2M19.500 12h2M5.300 5.300l1.400 1.400M17.300 17.300l1.400 1.400M18.700 5.300l-1.400 1.400M6.700 17.300l-1.400 1.400",
  ],
  table: ["M4 5h16v14H4z", "M4 10h16M10 10v9"],
  target: ["M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z", "M12 9.500a2.500 2.500 0 1 0 0 5 2.500 2.500 0 0 0 0-5z"],
  team: [
    "M9 5.500a3 3 0 1 0 0 6 3 3 0 0 0 0-6z",
    "M3.500 19c.4-3.200 2.500-4.800 5.500-4.800s5.100 1.600 5.500 4.800",
    "M15.500 6a2.800 2.800 0 0 1 0 5.300M17 14.500c2 .5 3.200 2 3.500 4.500",
  ],
  terminal: ["M4 5h16v14H4z", "M7.500 9.500l3 2.500-3 2.500M13 15h3.500"],
  theme: ["M12 3.500a8.500 8.500 0 1 0 0 17z", "M12 3.500a8.500 8.500 0 0 1 0 17"],
  thought: [
    "M9.500 17.500h5M10.500 20.500h3",
    "M8.800 14.500C7.100 13.400 6 11.700 6 9.500a6 6 0 0 1 12 0c0 2.200-1.100 3.900-2.800 5z",
  ],
  tool: [
    "M14.500 6.500a4 4 0 0 1 5-1l-2.700 2.700 1.500 1.500 2.700-2.700a4 4 0 0 1-5.300 5L8 19.500a2 2 0 0 1-3-3l7.500-7.500a4 4 0 0 1 2-2.500z",
  ],
  warning: ["M12 4L2.800 19.500h18.400z", "M12 10v4.500M12 17v.01"],
};

/** An icon, decorative: the text beside it has the same meaning. */
export function icon(name, className = "") {
  const paths = PATHS[name] ?? PATHS.info;
  return svg(
    "svg",
    { viewBox: "0 0 24 24", class: `icon ${className}`.trim(), "aria-hidden": "true", focusable: "false" },
    paths.map((d) => svg("path", { d })),
  );
}

const SPECIALISTS = new Set(["layers", "gauge", "book", "shield", "pen", "search", "spark", "table", "terminal"]);

/** The icon of a specialist by its name; a default for unknown names. */
export function specialistIcon(name) {
  if (name === "check") return icon("checkCircle");
  return icon(SPECIALISTS.has(name) ? name : "spark");
}

/** The logo of Runcast. */
export function mark() {
  return svg(
    "svg",
    { viewBox: "0 0 24 24", class: "mark", "aria-hidden": "true", focusable: "false" },
    svg("circle", { cx: 6, cy: 18, r: 2.2 }),
    svg("path", { d: "M6 11.200A6.800 6.800 0 0 1 12.800 18M6 4.500A13.500 13.500 0 0 1 19.500 18" }),
  );
}

/** Hits per minute as small bars: the shell around uPlot. Loaded when conditions are looked at. */

import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { ticksOf, type Minutes } from "./minutes";
import { kstTime } from "./time";

/** Seconds that the axis spans at least: a bar is not the whole day, and does not jump with the next. */
const LEAST = 9 * 60;
/** Pixels for each label of the time axis. */
const LABEL = 56;

export interface Dress {
  readonly bar: string;
  readonly text: string;
  readonly line: string;
  readonly font: string;
}

/** Draw bars into `element`; the returned functions show other minutes, and remove it. */
export function drawBars(element: HTMLElement, dress: Dress, height: number): { show(minutes: Minutes): void; destroy(): void } {
  const axis = { stroke: dress.text, font: `11px ${dress.font}`, ticks: { show: false } };
  const plot = new uPlot(
    {
      width: Math.max(60, element.clientWidth),
      height,
      legend: { show: false },
      cursor: { show: false },
      padding: [6, 18, 0, 0], // On the right half of a label.
      scales: { x: { time: true, range: (_, min, max) => [min - 40, Math.max(max, min + LEAST) + 40] }, y: { range: (_, __, max) => [0, Math.max(4, Math.ceil(max * 1.05))] } },
      axes: [
        {
          ...axis,
          size: 18,
          gap: 2,
          space: LABEL,
          grid: { show: false },
          splits: (self, _, min, max) => ticksOf(min, max, Math.floor(self.bbox.width / uPlot.pxRatio / LABEL)),
          values: (_, times) => times.map((at) => kstTime(at * 1000).slice(0, 5)),
        },
        { ...axis, size: 26, gap: 3, space: 26, grid: { stroke: dress.line, width: 1 }, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500] },
      ],
      series: [{}, { fill: dress.bar, stroke: dress.bar, width: 0, points: { show: false }, paths: uPlot.paths.bars!({ size: [0.8, 24, 1], gap: 0 }) }],
    },
    [[], []],
    element,
  );
  const observer = new ResizeObserver(() => plot.setSize({ width: Math.max(60, element.clientWidth), height }));
  observer.observe(element);
  return {
    show: ({ times, hits }) => plot.setData([[...times], [...hits]]),
    destroy: () => {
      observer.disconnect();
      plot.destroy();
    },
  };
}

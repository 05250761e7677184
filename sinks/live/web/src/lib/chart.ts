/**
 * The candles on the screen: the shell around TradingView's Lightweight Charts. Loaded when a stock is looked at.
 *
 * Its logo is switched off because it brings an inline style, which the server's policy refuses; the notice that its
 * license asks for stands below the chart.
 */

import {
  CandlestickSeries,
  ColorType,
  createChart,
  createSeriesMarkers,
  CrosshairMode,
  HistogramSeries,
  type IChartApi,
  type ISeriesApi,
  type ISeriesMarkersPluginApi,
  type SeriesMarker,
  type Time,
  type UTCTimestamp,
} from "lightweight-charts";
import type { Bar, Interval, Mark } from "./candles";
import { withColours } from "./colours";
import { numbers } from "./words-views";

export interface Colours {
  readonly up: string;
  readonly down: string;
  readonly text: string;
  readonly line: string;
  readonly surface: string;
  readonly accent: string;
  readonly volume: string;
  readonly font: string;
}

/** What a chart's colours are now. */
export const coloursOf = (element: HTMLElement): Colours =>
  withColours(element, (colour) => ({
    up: colour("up"),
    down: colour("down"),
    text: colour("text-2"),
    line: colour("line"),
    surface: colour("surface"),
    accent: colour("accent"),
    volume: colour("bar-rest"),
    font: getComputedStyle(element).fontFamily,
  }));

/** A mark's words, as the reader's language has them. */
export type MarkText = (mark: Mark) => string;

const time = (bar: { readonly time: number }): UTCTimestamp => bar.time as UTCTimestamp;

export class Chart {
  readonly #chart: IChartApi;
  readonly #candles: ISeriesApi<"Candlestick">;
  readonly #volumes: ISeriesApi<"Histogram">;
  readonly #marks: ISeriesMarkersPluginApi<Time>;
  #shown: readonly Bar[] = [];
  #fitted = "";

  constructor(element: HTMLElement, private colours: Colours) {
    this.#chart = createChart(element, {
      autoSize: true,
      crosshair: { mode: CrosshairMode.Normal },
      handleScale: { axisPressedMouseMove: true },
      layout: { attributionLogo: false },
    });
    this.#candles = this.#chart.addSeries(CandlestickSeries, {
      priceFormat: { type: "custom", minMove: 1, formatter: (price: number) => numbers.format(Math.round(price)) },
    });
    this.#volumes = this.#chart.addSeries(HistogramSeries, {
      priceScaleId: "volume",
      priceFormat: { type: "volume" },
      lastValueVisible: false,
      priceLineVisible: false,
    });
    this.#chart.priceScale("volume").applyOptions({ scaleMargins: { top: 0.84, bottom: 0 } });
    this.#marks = createSeriesMarkers(this.#candles, []);
    this.dress(colours);
  }

  /** Take other colours: the theme has changed. */
  dress(colours: Colours): void {
    this.colours = colours;
    const { up, down, text, line, surface, font } = colours;
    this.#chart.applyOptions({
      layout: { background: { type: ColorType.Solid, color: surface }, textColor: text, fontFamily: font },
      grid: { vertLines: { color: line }, horzLines: { color: line } },
      timeScale: { borderColor: line, maxBarSpacing: 40, rightOffset: 2 },
      rightPriceScale: { borderColor: line, scaleMargins: { top: 0.12, bottom: 0.2 } },
    });
    this.#candles.applyOptions({
      upColor: up,
      borderUpColor: up,
      wickUpColor: up,
      // Falling candles are hollow: the shape says it too.
      downColor: surface,
      borderDownColor: down,
      wickDownColor: down,
    });
    this.#volumes.applyOptions({ color: colours.volume });
  }

  /** Show these bars; what only the last one has changed is drawn as such. `of` says what they are of: a new one is fitted. */
  show(bars: readonly Bar[], interval: Interval, of: string): void {
    const before = this.#shown;
    this.#shown = bars;
    const isStep =
      this.#fitted === `${of}/${interval}` &&
      before.length > 0 &&
      bars.length - before.length >= 0 &&
      bars.length - before.length <= 1 &&
      bars[before.length - 2] === before[before.length - 2] &&
      bars[0] === before[0];
    if (isStep) {
      const last = bars.at(-1)!;
      this.#candles.update({ ...last, time: time(last) });
      if (last.volume > 0) this.#volumes.update({ time: time(last), value: last.volume });
      return;
    }
    this.#chart.timeScale().applyOptions({ timeVisible: interval !== "1d", secondsVisible: false });
    this.#candles.setData(bars.map((bar) => ({ ...bar, time: time(bar) })));
    this.#volumes.setData(bars.map((bar) => ({ time: time(bar), value: bar.volume })));
    if ((this.#fitted !== `${of}/${interval}` || bars.length > 2 * before.length) && bars.length > 0) {
      this.#fitted = `${of}/${interval}`;
      this.#chart.timeScale().fitContent();
    }
  }

  mark(marks: readonly Mark[], text: MarkText): void {
    const { up, down, accent } = this.colours;
    this.#marks.setMarkers(
      marks.map((mark): SeriesMarker<Time> => {
        const isBelow = mark.kind === "entered" || mark.kind === "opened";
        return {
          time: time(mark),
          position: isBelow ? "belowBar" : "aboveBar",
          shape: { entered: "arrowUp", exited: "arrowDown", opened: "circle", closed: "square" }[mark.kind] as "arrowUp",
          color: mark.kind === "entered" ? up : mark.kind === "exited" ? down : accent,
          text: text(mark),
        };
      }),
    );
  }

  destroy(): void {
    this.#chart.remove();
  }
}

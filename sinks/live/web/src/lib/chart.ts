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
  LineSeries,
  type IChartApi,
  type ISeriesApi,
  type ISeriesMarkersPluginApi,
  type SeriesMarker,
  type Time,
  type UTCTimestamp,
} from "lightweight-charts";
import { isBelow, rangeOf, type Bar, type Interval, type Mark } from "./candles";
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
  /** What marks stand at where no bar is: the last price, or the foot of the chart. Lines that are not drawn. */
  readonly #lines: { readonly [place in "price" | "foot"]: readonly [ISeriesApi<"Line">, ISeriesMarkersPluginApi<Time>] };
  #shown: readonly Bar[] = [];
  #marked: readonly Mark[] = [];
  #fitted = "";
  /** Whether the reader has moved the chart: then it stays where it is. */
  #isMoved = false;

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
    this.#lines = { price: this.#line("right"), foot: this.#line("foot") };
    this.#lines.foot[0].applyOptions({ autoscaleInfoProvider: () => ({ priceRange: { minValue: 0, maxValue: 1 } }) });
    this.#chart.priceScale("foot").applyOptions({ scaleMargins: { top: 0.85, bottom: 0.14 } });
    for (const moved of ["wheel", "pointerdown"])
      element.addEventListener(moved, () => (this.#isMoved = true), { passive: true, capture: true });
    this.#chart.timeScale().subscribeSizeChange(() => this.#fit());
    this.dress(colours);
  }

  #line(priceScaleId: string): readonly [ISeriesApi<"Line">, ISeriesMarkersPluginApi<Time>] {
    const line = this.#chart.addSeries(LineSeries, {
      priceScaleId,
      lineVisible: false,
      lastValueVisible: false,
      priceLineVisible: false,
      crosshairMarkerVisible: false,
    });
    return [line, createSeriesMarkers(line, [], { autoScale: false })];
  }

  /** Show everything, with room for words at both edges, unless the reader has moved the chart. */
  #fit(): void {
    const last = Math.max(this.#shown.at(-1)?.time ?? 0, this.#marked.at(-1)?.time ?? 0);
    const scale = this.#chart.timeScale();
    const index = last === 0 ? null : scale.timeToIndex(last as UTCTimestamp, true);
    const range = index === null || this.#isMoved ? null : rangeOf(index + 1, scale.width());
    if (range) scale.setVisibleLogicalRange(range);
  }

  /** Take other colours: the theme has changed. */
  dress(colours: Colours): void {
    this.colours = colours;
    const { up, down, text, line, surface, font } = colours;
    this.#chart.applyOptions({
      layout: { background: { type: ColorType.Solid, color: surface }, textColor: text, fontFamily: font },
      grid: { vertLines: { color: line }, horzLines: { color: line } },
      timeScale: { borderColor: line, maxBarSpacing: 40 },
      rightPriceScale: { borderColor: line, scaleMargins: { top: 0.12, bottom: 0.2 }, entireTextOnly: true },
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
      if (bars.length > before.length) this.#fit();
      return;
    }
    this.#chart.timeScale().applyOptions({ timeVisible: interval !== "1d", secondsVisible: false });
    this.#candles.setData(bars.map((bar) => ({ ...bar, time: time(bar) })));
    this.#volumes.setData(bars.map((bar) => ({ time: time(bar), value: bar.volume })));
    if (this.#fitted !== `${of}/${interval}` && bars.length > 0) {
      this.#fitted = `${of}/${interval}`;
      this.#isMoved = false;
    }
    this.#fit();
  }

  mark(marks: readonly Mark[], text: MarkText): void {
    const { up, down, accent } = this.colours;
    this.#marked = marks;
    const drawn = (mark: Mark): SeriesMarker<Time> => ({
      time: time(mark),
      position: isBelow(mark) ? "belowBar" : "aboveBar",
      shape: { entered: "arrowUp", exited: "arrowDown", opened: "circle", closed: "square" }[mark.kind] as "arrowUp",
      color: mark.kind === "entered" ? up : mark.kind === "exited" ? down : accent,
      text: text(mark),
    });
    // All lines before any marks: a line brings times of its own, by whose places the library keeps its marks.
    const lines = (["price", "foot"] as const).map((place) => {
      const there = marks.filter(({ at }) => (place === "foot" ? at === "foot" : typeof at === "number"));
      const values = new Map(there.map((mark) => [time(mark), mark.at === "foot" ? 0 : (mark.at as number)]));
      this.#lines[place][0].setData([...values].map(([at, value]) => ({ time: at, value })));
      return { place, there };
    });
    for (const { place, there } of lines) this.#lines[place][1].setMarkers(there.map(drawn));
    this.#marks.setMarkers(marks.filter(({ at }) => at === "bar").map(drawn));
    this.#fit();
  }

  destroy(): void {
    this.#chart.remove();
  }
}

// What the report draws with: the parts of Apache ECharts that it needs, and no more.
import {
  BarChart, BoxplotChart, CustomChart, HeatmapChart, LineChart, ScatterChart,
} from "echarts/charts";
import {
  AriaComponent, DataZoomInsideComponent, GridComponent, LegendComponent, TitleComponent,
  TooltipComponent, VisualMapContinuousComponent,
} from "echarts/components";
import { use } from "echarts/core";
import { SVGRenderer } from "echarts/renderers";

use([
  AriaComponent, BarChart, BoxplotChart, CustomChart, DataZoomInsideComponent, GridComponent,
  HeatmapChart, LegendComponent, LineChart, ScatterChart, SVGRenderer, TitleComponent,
  TooltipComponent, VisualMapContinuousComponent,
]);

export { getInstanceByDom, init, version } from "echarts/core";

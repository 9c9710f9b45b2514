//go:build linux

package main

import (
	"fmt"
	"html"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// chart is a picture of one figure of some workloads, a panel for each.
type chart struct {
	file, title, figure string
	workloads           []string
}

func charts() []chart {
	return []chart{
		{"work", "CPU time of the proxy, µs per connection, request or transaction (two threads)", cpu, []string{"short18k", "keep64", "keep1000", "keep18k", "pgbench", "redis-p1"}},
		{"bulk", "Bulk: CPU time of the proxy, µs per MiB (two threads, cubic)", cpu, []string{"bulk1", "bulk4", "bulk64", "file1", "file4", "file64"}},
		{"latency", "Small requests at fixed rates: added to the p99, µs (two threads)", added99, []string{"rate5k", "rate10k", "rate16k"}},
	}
}

// image is a chart that is written.
type image struct{ title, path string }

// writeCharts writes what can be drawn into the folder of the options.
func writeCharts(opt options, rec *record) ([]image, error) {
	if err := os.MkdirAll(opt.charts, 0o755); err != nil {
		return nil, err
	}
	near, err := filepath.Rel(filepath.Dir(opt.out), opt.charts)
	if err != nil {
		return nil, err
	}
	var all []image
	for _, c := range charts() {
		picture := draw(c, rec)
		if picture == "" {
			continue
		}
		name := c.file + ".svg"
		if err := replace(filepath.Join(opt.charts, name), picture); err != nil {
			return nil, err
		}
		all = append(all, image{c.title, filepath.ToSlash(filepath.Join(near, name))})
	}
	return all, nil
}

// panel is what one workload gives to a chart.
type panel struct {
	title string
	bars  []bar
	most  float64
}

type bar struct {
	name string
	interval
}

func panelOf(f figure, c comparison, rec *record) panel {
	p := panel{title: c.title + " (" + c.name + ")"}
	for _, peer := range rec.peers() {
		if in := rec.interval(c, f, peer.name); in.n > 0 && !(f.proxy && peer.argv == nil) {
			p.bars = append(p.bars, bar{peer.name, in})
			p.most = max(p.most, in.middle)
			if !math.IsInf(in.high, 0) {
				p.most = max(p.most, in.high)
			}
		}
	}
	return p
}

// The measures of a chart, in pixels.
const (
	chartWidth = 780
	labelWidth = 120
	valueWidth = 190
	barHeight  = 14
	rowHeight  = 20
	headHeight = 34
	panelGap   = 40
)

// draw returns a chart as SVG, "" if there is nothing to draw. The bars are
// medians, the lines their intervals.
func draw(c chart, rec *record) string {
	var panels []panel
	height := headHeight
	for _, of := range rec.comparisons() {
		if !slices.Contains(c.workloads, of.name) || of.threads != 2 || of.control != usualControl {
			continue
		}
		f, ok := of.figureOf(c.figure)
		if !ok {
			continue
		}
		if p := panelOf(f, of, rec); p.most > 0 {
			panels = append(panels, p)
			height += panelGap + rowHeight*len(p.bars)
		}
	}
	if len(panels) == 0 {
		return ""
	}
	height += headHeight / 2
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" role="img" aria-label="%[3]s">
<style>
text { font: 13px system-ui, sans-serif; fill: #24292f } .title { font-weight: 600; font-size: 15px } .panel { font-weight: 600 }
.paper { fill: #ffffff } .other { fill: #9aa7b5 } .ours { fill: #1a7f5a } .more { fill: #8ccdb4 } .range { stroke: #24292f; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .paper { fill: #0d1117 } .range { stroke: #e6edf3 } .other { fill: #5b6672 } }
</style>
<rect class="paper" width="%[1]d" height="%[2]d"/>
<text class="title" x="8" y="22">%[3]s</text>
`, chartWidth, height, html.EscapeString(c.title))
	y := headHeight
	for _, p := range panels {
		drawPanel(&b, p, y)
		y += panelGap + rowHeight*len(p.bars)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func drawPanel(b *strings.Builder, p panel, y int) {
	fmt.Fprintf(b, `<text class="panel" x="8" y="%d">%s</text>`+"\n", y+24, html.EscapeString(p.title))
	y += panelGap - 8
	at := func(x float64) float64 { return labelWidth + x/p.most*(chartWidth-labelWidth-valueWidth) }
	for _, bar := range p.bars {
		class := "other"
		switch {
		case bar.name == ours:
			class = "ours"
		case strings.HasPrefix(bar.name, ours):
			class = "more"
		}
		middle := y + barHeight/2
		fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, labelWidth-8, middle+5, html.EscapeString(bar.name))
		fmt.Fprintf(b, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d"/>`, class, labelWidth, y, max(1, at(bar.middle)-labelWidth), barHeight)
		end := bar.middle
		if !math.IsInf(bar.low, 0) && !math.IsInf(bar.high, 0) {
			end = max(end, bar.high)
			fmt.Fprintf(b, `<line class="range" x1="%.1f" x2="%.1f" y1="%d" y2="%[3]d"/>`, at(max(0, bar.low)), at(bar.high), middle)
		}
		fmt.Fprintf(b, `<text x="%.1f" y="%d">%s</text>`+"\n", at(max(0, end))+8, middle+5, html.EscapeString(short(bar.middle)))
		y += rowHeight
	}
}

//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"html"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Growth is what a connection and a change cost as a configuration grows.

// growing is what there may be many of.
type growing struct {
	name, about string
	most        int // as many as descriptors allow; 0: as many as there are sizes
	config      func(p growthPlace, n int) string
	listeners   func(n int) int // how many addresses take the connections that are measured
	hold        bool            // hold n sessions
	attack      bool            // a client for the dead group comes while latency is measured
}

func (g growing) key() string { return g.name }

// growthSizes are how many of them there are.
func growthSizes() []int { return []int{1, 10, 100, 1000, 10_000} }

// growthPlace is where txlb runs while it grows. All of 127.0.0.0/8 is loopback,
// so thousands of hosts and listeners have an address each.
type growthPlace struct {
	port    int    // to listen on
	target  int    // where the backend listens, on every address
	dead    int    // where nobody does
	metrics string // host:port
	socket  string
}

// many returns the address number i of a network 127.NET.
func many(net, i, port int) string {
	return fmt.Sprintf("127.%d.%d.%d:%d", net, i/200, 1+i%200, port)
}

func growths() []growing {
	one := func(int) int { return 1 }
	all := func(n int) int { return n }
	repeat := func(n int, f func(i int) string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(f(i))
		}
		return b.String()
	}
	service := func(name, listen, hosts string) string {
		return fmt.Sprintf("<service name=%q>%s<group name=\"g\">%s</group></service>\n", name, listen, hosts)
	}
	listen := func(p growthPlace, i int) string { return fmt.Sprintf("<listen ip=%q/>", many(1, i, p.port)) }
	host := func(p growthPlace, i int) string {
		return fmt.Sprintf("<host name=\"h%d\" ip=%q/>\n", i, many(2, i, p.target))
	}
	return []growing{
		{name: "hosts", about: "hosts of one service, all up", listeners: one, config: func(p growthPlace, n int) string {
			return service("s0", listen(p, 0), repeat(n, func(i int) string { return host(p, i) }))
		}},
		{name: "checked", about: "hosts of one service, checked by TCP every 2 s", listeners: one, config: func(p growthPlace, n int) string {
			return service("s0", listen(p, 0), "<check/>"+repeat(n, func(i int) string { return host(p, i) }))
		}},
		{name: "dead", about: "dead hosts of another service, without a check; a client comes to it", listeners: one, attack: true, config: func(p growthPlace, n int) string {
			return service("s0", listen(p, 0), host(p, 0)) + service("dead", listen(p, 1), repeat(n, func(i int) string {
				return fmt.Sprintf("<host name=\"h%d\" ip=%q/>\n", i, many(3, i, p.dead))
			}))
		}},
		{name: "services", about: "services with a listener and a host each", listeners: all, config: func(p growthPlace, n int) string {
			return repeat(n, func(i int) string { return service("s"+strconv.Itoa(i), listen(p, i), host(p, i)) })
		}},
		{name: "listeners", about: "listeners of one service", listeners: all, config: func(p growthPlace, n int) string {
			return service("s0", repeat(n, func(i int) string { return listen(p, i) }), host(p, 0))
		}},
		{name: "sessions", about: "idle sessions beside", listeners: one, hold: true, most: 9000, config: func(p growthPlace, _ int) string {
			return service("s0", listen(p, 0), host(p, 0))
		}},
	}
}

// grownFigure is one figure of growth.
type grownFigure struct {
	name, title string
	least       float64 // the chart does not look closer
}

func grownFigures() []grownFigure {
	return []grownFigure{
		{"calls", "system calls per connection", 1},
		{"connection", "CPU µs per connection, with all beside", 10},
		{"p50", "p50 of a connection, µs", 10},
		{"p99", "p99 of a connection, µs", 10},
		{"change", "CPU ms per change", 0.01},
		{"wait", "ms that a change takes", 0.01},
		{"objects", "allocations per change", 1},
		{"start", "ms to start", 1},
		{"idle", "CPU ms per second of rest", 0.01},
		{"resident", "MiB resident", 1},
	}
}

// grownTo is what was measured at one size.
type grownTo struct {
	kind   string
	size   int
	values map[string]float64
}

// growthCommand is "bench growth": it measures, and prints or keeps that.
func growthCommand(ctx context.Context, args []string, stdout, progress io.Writer) int {
	flags := flag.NewFlagSet("bench growth", flag.ContinueOnError)
	flags.SetOutput(progress)
	only := flags.String("only", "", "`NAMES` of what grows, separated by commas: "+names(growths()))
	most := flags.Int("most", 10_000, "the largest size")
	data := flags.String("data", "", "`FOLDER` to write growth.tsv to (default: tables on standard output)")
	from := flags.String("from", "", "draw the figures in `FOLDER` instead of measuring")
	charts := flags.String("charts", "", "`FOLDER` to write growth.svg to (default: none)")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	kinds, err := choose("-only", *only, growths())
	if err == nil && flags.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if err != nil {
		fmt.Fprintln(progress, "bench:", err)
		return 2
	}
	if *from == "" && !inNetwork() {
		fmt.Fprintln(progress, "bench:", enterNetwork(append([]string{"growth"}, args...)))
		return 1
	}
	var all []grownTo
	if *from != "" {
		all, err = readGrowth(*from)
	} else {
		all, err = growAll(ctx, kinds, *most, progress)
	}
	if err == nil && *data != "" {
		err = writeGrowth(*data, all)
	} else if err == nil {
		_, err = io.WriteString(stdout, growthTables(all, aligned))
	}
	if err == nil && *charts != "" {
		err = os.MkdirAll(*charts, 0o755)
		if err == nil {
			err = replace(filepath.Join(*charts, growthChart), drawGrowth(all))
		}
	}
	if err != nil {
		fmt.Fprintln(progress, "bench:", err)
		return 1
	}
	return 0
}

const growthFile, growthPage, growthChart = "growth.tsv", "growth.md", "growth.svg"

const growthColumns = "kind\tsize\tfigure\tvalue"

func writeGrowth(folder string, all []grownTo) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	var b strings.Builder
	b.WriteString("# What a connection and a change cost as a configuration grows. Written by \"make growth\".\n" + growthColumns + "\n")
	for _, g := range all {
		for _, f := range grownFigures() {
			if v, ok := g.values[f.name]; ok && !math.IsNaN(v) {
				fmt.Fprintf(&b, "%s\t%d\t%s\t%s\n", g.kind, g.size, f.name, exact(v))
			}
		}
	}
	if err := replace(filepath.Join(folder, growthFile), b.String()); err != nil {
		return err
	}
	return replace(filepath.Join(folder, growthPage), "# Growth\n\nWritten by `make growth`: one txlb with one loop and the page off, a run for each size.\n\n"+growthTables(all, table))
}

// readGrowth reads what writeGrowth wrote.
func readGrowth(folder string) ([]grownTo, error) {
	text, err := os.ReadFile(filepath.Join(folder, growthFile))
	if err != nil {
		return nil, err
	}
	var all []grownTo
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "#") || line == growthColumns {
			continue
		}
		cells := strings.Split(line, "\t")
		if len(cells) != 4 {
			return nil, fmt.Errorf("%s: want four columns with a tab between them, got %q", growthFile, line)
		}
		size, err := strconv.Atoi(cells[1])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", growthFile, err)
		}
		value, err := strconv.ParseFloat(cells[3], 64)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", growthFile, err)
		}
		if last := len(all) - 1; last < 0 || all[last].kind != cells[0] || all[last].size != size {
			all = append(all, grownTo{cells[0], size, map[string]float64{}})
		}
		all[len(all)-1].values[cells[2]] = value
	}
	return all, nil
}

// growthTables has a table for each kind, with a column for each size.
func growthTables(all []grownTo, draw func([][]string) string) string {
	var b strings.Builder
	for _, k := range growths() {
		of := slices.DeleteFunc(slices.Clone(all), func(g grownTo) bool { return g.kind != k.name })
		if len(of) == 0 {
			continue
		}
		rows := [][]string{{k.name}}
		for _, g := range of {
			rows[0] = append(rows[0], thousands(g.size))
		}
		for _, f := range grownFigures() {
			row := []string{f.title}
			for _, g := range of {
				row = append(row, shown([]float64{g.values[f.name]}))
			}
			rows = append(rows, row)
		}
		fmt.Fprintf(&b, "## %s: %s\n\n%s\n", k.name, k.about, strings.TrimRight(draw(rows), "\n")+"\n")
	}
	return b.String()
}

// thousands writes a number with commas.
func thousands(n int) string {
	if n < 1000 {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}

// drawGrowth returns a chart as SVG: a panel for each figure that shows how
// something grows, a line for each kind, both axes with powers of ten.
func drawGrowth(all []grownTo) string {
	const (
		width, panelWidth, panelHeight = 860, 270, 190
		left, top, gap                 = 50, 40, 90
	)
	panels := []string{"connection", "change", "objects", "start", "idle", "resident"}
	colours := []string{"#1a7f5a", "#b35900", "#cf222e", "#0969da", "#8250df", "#57606a"}
	var b strings.Builder
	height := top + (len(panels)+2)/3*(panelHeight+gap-20) + 20
	title := "txlb: cost as hosts, services, listeners and sessions grow"
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" role="img" aria-label="%[3]s">
<style>
text { font: 12px system-ui, sans-serif; fill: #24292f } .title { font-weight: 600; font-size: 15px } .panel { font-weight: 600 } .tick { font-size: 10px }
.paper { fill: #ffffff } .grid { stroke: #d0d7de; stroke-width: 0.5 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .paper { fill: #0d1117 } .grid { stroke: #30363d } }
</style>
<rect class="paper" width="%[1]d" height="%[2]d"/>
<text class="title" x="8" y="22">%[3]s</text>
`, width, height, html.EscapeString(title))
	for i, name := range panels {
		f := grownFigures()[slices.IndexFunc(grownFigures(), func(f grownFigure) bool { return f.name == name })]
		x, y := left+i%3*(panelWidth+10), top+30+i/3*(panelHeight+gap-20)
		most := f.least * 10
		for _, g := range all {
			if v := g.values[name]; !math.IsNaN(v) {
				most = max(most, v)
			}
		}
		low, high := math.Floor(math.Log10(f.least)), math.Ceil(math.Log10(most))
		across := func(size int) float64 { return float64(x) + math.Log10(float64(size))/4*(panelWidth-60) }
		up := func(v float64) float64 {
			return float64(y+panelHeight-30) - (math.Log10(max(v, f.least))-low)/(high-low)*(panelHeight-30)
		}
		fmt.Fprintf(&b, `<text class="panel" x="%d" y="%d">%s</text>`+"\n", x-30, y-10, html.EscapeString(f.title))
		for e := low; e <= high; e++ {
			fmt.Fprintf(&b, `<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%[3]f"/><text class="tick" x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n",
				x, x+panelWidth-60, up(math.Pow(10, e)), x-4, up(math.Pow(10, e))+3, strconv.FormatFloat(math.Pow(10, e), 'f', -1, 64))
		}
		for _, size := range growthSizes() {
			fmt.Fprintf(&b, `<text class="tick" x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", across(size), y+panelHeight-14, thousands(size))
		}
		for j, k := range growths() {
			var points []string
			for _, g := range all {
				if v, ok := g.values[name]; g.kind == k.name && ok && !math.IsNaN(v) {
					points = append(points, fmt.Sprintf("%.1f,%.1f", across(g.size), up(v)))
				}
			}
			if len(points) > 0 {
				fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", strings.Join(points, " "), colours[j%len(colours)])
			}
		}
	}
	for j, k := range growths() {
		x := left + j*135
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="14" height="4" fill="%s"/><text x="%d" y="%d">%s</text>`+"\n", x, height-16, colours[j%len(colours)], x+20, height-10, html.EscapeString(k.name))
	}
	b.WriteString("</svg>\n")
	return b.String()
}

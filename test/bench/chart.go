package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Charts are SVG by hand: they are a few lines and texts, and their colours have to follow the
// reader's, light or dark, which they do as pictures in a page too.
const chartStyle = `<style>
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.quiet { fill: #59636e } .grid { stroke: #d1d9e0 } .whisker { stroke: #1f2328 }
.us { fill: #0969da } .them { fill: #8c959f } .line { fill: none; stroke: #0969da; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc } .quiet { fill: #9198a1 } .grid { stroke: #3d444d } .whisker { stroke: #f0f6fc }
.us { fill: #4493f8 } .them { fill: #656c76 } .line { stroke: #4493f8 }
}
</style>
`

// bar is one of a chart.
type bar struct {
	name  string
	value spread
	us    bool
}

func bars(subjects []*subject) []bar {
	var all []bar
	for _, s := range subjects {
		all = append(all, bar{name: strings.ReplaceAll(s.name, "`", ""), us: strings.HasPrefix(s.name, "Sallyport"),
			value: spreadOf(s.each(func(r result) float64 { return r.cpu }))})
	}
	return all
}

// barChart has a bar for each, with a line from the least to the most.
func barChart(title string, all []bar) string {
	const left, right, row, top = 310, 760, 28, 40
	most := 0.0
	for _, b := range all {
		most = max(most, b.value.most)
	}
	if most == 0 {
		most = 1
	}
	height := top + row*len(all) + 10
	x := func(v float64) float64 { return left + (right-left-60)*v/most }
	var svg strings.Builder
	begin(&svg, right, height, title)
	for i, b := range all {
		y := top + row*i
		class := "them"
		if b.us {
			class = "us"
		}
		fmt.Fprintf(&svg, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", left-10, y+16,
			html.EscapeString(b.name))
		fmt.Fprintf(&svg, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d"/>`+"\n",
			class, left, y+3, x(b.value.median)-left, row-8)
		if b.value.least < b.value.most {
			fmt.Fprintf(&svg, `<line class="whisker" x1="%.1f" x2="%.1f" y1="%d" y2="%[3]d"/>`+"\n",
				x(b.value.least), x(b.value.most), y+row/2-1)
		}
		fmt.Fprintf(&svg, `<text x="%.1f" y="%d">%s</text>`+"\n", x(max(b.value.most, b.value.median))+8, y+16,
			number(b.value.median))
	}
	svg.WriteString("</svg>\n")
	return svg.String()
}

func begin(svg *strings.Builder, width, height int, title string) {
	fmt.Fprintf(svg, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%[1]d" height="%[2]d" `+
		"role=\"img\">\n<title>%[3]s</title>\n%[4]s"+`<text class="quiet" x="10" y="20">%[3]s</text>`+"\n",
		width, height, html.EscapeString(title), chartStyle)
}

// lineChart has its points at equal distances, and begins at nought.
func lineChart(title string, points []finding) string {
	const left, right, top, bottom, below = 70, 740, 40, 220, 30
	most := 0.0
	for _, p := range points {
		most = max(most, p.value)
	}
	step := niceStep(most)
	most = math.Ceil(max(most, step)/step) * step // a figure of nought has a place, too
	y := func(v float64) float64 { return bottom - (bottom-top)*v/most }
	var svg strings.Builder
	begin(&svg, right+20, bottom+below, title)
	for v := 0.0; v <= most+step/2; v += step {
		fmt.Fprintf(&svg, `<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%[3]f"/>`+"\n", left, right, y(v))
		fmt.Fprintf(&svg, `<text class="quiet" x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n", left-8, y(v)+4,
			number(v))
	}
	var line strings.Builder
	for i, p := range points {
		x := left + 40 + float64((right-left-80)*i)/float64(max(1, len(points)-1))
		fmt.Fprintf(&line, "%.1f,%.1f ", x, y(p.value))
		fmt.Fprintf(&svg, `<circle class="us" cx="%.1f" cy="%.1f" r="4"/>`+"\n", x, y(p.value))
		fmt.Fprintf(&svg, `<text x="%.1f" y="%.1f" text-anchor="middle">%s</text>`+"\n", x, y(p.value)-9,
			number(p.value))
		fmt.Fprintf(&svg, `<text class="quiet" x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", x, bottom+20,
			html.EscapeString(p.label))
	}
	fmt.Fprintf(&svg, `<polyline class="line" points="%s"/>`+"\n</svg>\n", strings.TrimSpace(line.String()))
	return svg.String()
}

// niceStep is the distance of four lines or so up to most: 1, 2 or 5 times a power of ten.
func niceStep(most float64) float64 {
	if most <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(most/4)))
	for _, f := range []float64{1, 2, 5} {
		if power*f >= most/4 {
			return power * f
		}
	}
	return power * 10
}

// number is one with three digits or so.
func number(v float64) string {
	switch {
	case v != 0 && math.Abs(v) < 10:
		return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", v), "0"), ".")
	case math.Abs(v) < 100:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0")
	}
	return fmt.Sprintf("%.0f", v)
}

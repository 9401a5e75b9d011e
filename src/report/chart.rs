//! Charts as SVG.

use std::fmt::Write;

use super::page::escape;

/// One line of a chart. Points whose y is not finite are left out.
pub struct Series {
    pub name: String,
    pub points: Vec<[f64; 2]>,
}

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 52.0;
const BOTTOM: f64 = 34.0;
const TOP: f64 = 26.0;
const RIGHT: f64 = 12.0;

/// A line chart with axes, a legend and a title for those who do not see it.
pub fn lines(title: &str, x_label: &str, y_label: &str, series: &[Series]) -> String {
    let finite = || {
        let points = series.iter().flat_map(|s| &s.points);
        points.filter(|p| p[0].is_finite() && p[1].is_finite())
    };
    let Some(first) = finite().next() else {
        return format!("<p>{}: nothing to draw yet</p>", escape(title));
    };
    let [mut x, mut y] = [[first[0]; 2], [first[1]; 2]];
    for p in finite() {
        x = [x[0].min(p[0]), x[1].max(p[0])];
        y = [y[0].min(p[1]), y[1].max(p[1])];
    }
    let place = |range: [f64; 2], v: f64| (v - range[0]) / (range[1] - range[0]).max(1e-12);
    let at_x = |v: f64| LEFT + place(x, v) * (WIDTH - LEFT - RIGHT);
    let at_y = |v: f64| HEIGHT - BOTTOM - place(y, v) * (HEIGHT - BOTTOM - TOP);
    let mut svg = format!(
        "<svg role=\"img\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" font-size=\"11\" \
            fill=\"currentColor\"><title>{}</title>\n",
        escape(title)
    );
    for i in 0..=4 {
        let share = f64::from(i) / 4.0;
        let (vx, vy) = (x[0] + share * (x[1] - x[0]), y[0] + share * (y[1] - y[0]));
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y1:.1}\" y2=\"{y1:.1}\" stroke=\"var(--rule)\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 4.0,
            at_y(vy) + 4.0,
            tick(vy),
            at_x(vx),
            HEIGHT - BOTTOM + 14.0,
            tick(vx),
            y1 = at_y(vy),
        );
    }
    let mut legend_x = LEFT;
    for (i, s) in series.iter().enumerate() {
        let colour = format!("var(--c{})", i % 8);
        let mut points = String::new();
        for p in s.points.iter().filter(|p| p[1].is_finite()) {
            let _ = write!(points, "{:.1},{:.1} ", at_x(p[0]), at_y(p[1]));
        }
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke-width=\"1.5\" stroke=\"{colour}\" points=\"{}\"/>\
             <text x=\"{legend_x:.0}\" y=\"12\" fill=\"{colour}\">{}</text>",
            points.trim_end(),
            escape(&s.name)
        );
        legend_x += 7.0 * s.name.chars().count() as f64 + 14.0;
    }
    let _ = write!(
        svg,
        "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>\
         <text x=\"12\" y=\"{:.0}\" text-anchor=\"middle\" transform=\"rotate(-90 12 {:.0})\">{}</text>\n</svg>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 4.0,
        escape(x_label),
        HEIGHT / 2.0,
        HEIGHT / 2.0,
        escape(y_label)
    );
    svg
}

/// Three significant digits.
fn tick(v: f64) -> String {
    match v.abs() {
        a if a >= 100.0 || a == 0.0 => format!("{v:.0}"),
        a if a >= 10.0 => format!("{v:.1}"),
        a if a >= 1.0 => format!("{v:.2}"),
        _ => format!("{v:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_spans_its_values_and_leaves_out_what_is_not_a_number() {
        let series = [Series {
            name: "PQ".into(),
            points: vec![[0.0, 0.1], [1.0, f64::NAN], [2.0, 0.5]],
        }];
        let svg = lines("PQ by step", "step", "PQ", &series);
        assert!(svg.contains("points=\"52.0,206.0 508.0,26.0\""), "{svg}");
        assert!(lines("t", "x", "y", &[]).contains("nothing to draw"));
    }
}

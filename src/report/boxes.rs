//! Box plots, bars and strips as SVG: groups side by side, each named in text, so that no reader needs the colours.

use std::fmt::Write;

use super::features::LEAST_NUCLEI;
use super::page::escape;
use super::stats::Quantiles;

/// One row of a plot.
pub struct Group<'a> {
    pub name: &'a str,
    pub colour: [u8; 3],
}

/// Fits a phone's width without getting small.
const WIDTH: f64 = 400.0;
const LEFT: f64 = 112.0;
const RIGHT: f64 = 24.0;
const ROW: f64 = 34.0;
const TOP: f64 = 6.0;
const AXIS: f64 = 40.0;
/// Longest name that fits beside a row.
const NAME_CHARS: usize = 16;

/// A box from quartile to quartile with the median, whiskers from 5 % to 95 %; no box without quantiles, which groups
/// of few nuclei do not have.
pub fn boxes(title: &str, x_label: &str, groups: &[(Group<'_>, Option<Quantiles>)]) -> String {
    let finite = groups.iter().filter_map(|(_, q)| q.as_ref());
    let low = finite
        .clone()
        .map(|q| q.at[0])
        .fold(f64::INFINITY, f64::min);
    let high = finite.map(|q| q.at[4]).fold(f64::NEG_INFINITY, f64::max);
    if low > high {
        return format!("<p>{}: no value</p>", escape(title));
    }
    let scale = Scale::over(low, high);
    let mut svg = open(title, groups.len());
    scale.draw(&mut svg, groups.len(), x_label);
    for (row, (group, quantiles)) in groups.iter().enumerate() {
        let middle = middle(row);
        name(&mut svg, middle, group.name);
        let Some(q) = quantiles else {
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" font-size=\"12\" fill-opacity=\".7\">fewer than {LEAST_NUCLEI} nuclei</text>",
                LEFT + 6.0,
                middle + 4.0,
            );
            continue;
        };
        let [p5, p25, p50, p75, p95] = q.at.map(|v| scale.at(v));
        let _ = writeln!(
            svg,
            "<g><title>{}: median {}, quartiles {} to {}, 5 % to 95 %: {} to {}, {} nuclei</title>\
             <path d=\"M{p5:.1} {middle}H{p25:.1}M{p75:.1} {middle}H{p95:.1}M{p5:.1} {t:.1}v10M{p95:.1} {t:.1}v10\" \
             stroke=\"currentColor\" fill=\"none\"/>\
             <rect x=\"{p25:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"20\" fill=\"{colour}\" stroke=\"currentColor\"/>\
             <path d=\"M{p50:.1} {y:.1}v20\" stroke=\"#fff\" stroke-width=\"5\"/>\
             <path d=\"M{p50:.1} {y:.1}v20\" stroke=\"#000\" stroke-width=\"2\"/></g>",
            escape(group.name),
            number(q.at[2]),
            number(q.at[1]),
            number(q.at[3]),
            number(q.at[0]),
            number(q.at[4]),
            q.count,
            t = middle - 5.0,
            y = middle - 10.0,
            w = (p75 - p25).max(1.0),
            colour = hex(group.colour),
        );
    }
    svg.push_str("</svg>");
    svg
}

/// One bar a group from 0, its number beside it.
pub fn bars(title: &str, x_label: &str, groups: &[(Group<'_>, f64)]) -> String {
    let high = groups.iter().map(|(_, v)| *v).fold(0.0, f64::max);
    // Room for the number behind the longest bar.
    let scale = Scale::over(0.0, (high * 1.25).max(1e-9));
    let mut svg = open(title, groups.len());
    scale.draw(&mut svg, groups.len(), x_label);
    for (row, (group, value)) in groups.iter().enumerate() {
        let middle = middle(row);
        name(&mut svg, middle, group.name);
        let _ = writeln!(
            svg,
            "<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{:.1}\" height=\"20\" fill=\"{}\" stroke=\"currentColor\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            middle - 10.0,
            (scale.at(*value) - LEFT).max(0.0),
            hex(group.colour),
            scale.at(*value) + 5.0,
            middle + 4.5,
            number(*value)
        );
    }
    svg.push_str("</svg>");
    svg
}

/// A dot a value on one line; those that `marked` names carry their names.
pub fn strip(title: &str, x_label: &str, values: &[(&str, f64, bool)]) -> String {
    let finite = || values.iter().filter(|(_, v, _)| v.is_finite());
    let low = finite().map(|v| v.1).fold(f64::INFINITY, f64::min);
    let high = finite().map(|v| v.1).fold(f64::NEG_INFINITY, f64::max);
    if low > high {
        return format!("<p>{}: no value</p>", escape(title));
    }
    let scale = Scale::over(low, high);
    let mut svg = open(title, 1);
    scale.draw(&mut svg, 1, x_label);
    name(&mut svg, middle(0), title);
    for (slide, value, marked) in finite() {
        let x = scale.at(*value);
        let (radius, fill) = if *marked {
            (6, "var(--c1)")
        } else {
            (4, "var(--c0)")
        };
        let _ = writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{:.1}\" r=\"{radius}\" fill=\"{fill}\" fill-opacity=\".6\" \
                stroke=\"currentColor\">\
             <title>{}: {}</title></circle>",
            middle(0),
            escape(slide),
            number(*value)
        );
    }
    svg.push_str("</svg>");
    svg
}

/// Three significant digits, no exponent, thousands apart.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    let digits = if value == 0.0 {
        0
    } else {
        (2 - value.abs().log10().floor() as i32).clamp(0, 6) as usize
    };
    let text = format!("{value:.digits$}");
    let text = match text.split_once('.') {
        Some((_, rest)) if rest.bytes().all(|b| b == b'0') => {
            text[..text.len() - rest.len() - 1].to_owned()
        }
        _ => text,
    };
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) if digits.bytes().any(|b| b.is_ascii_digit() && b != b'0') => ("−", digits),
        Some(digits) => ("", digits),
        None => ("", text.as_str()),
    };
    let (whole, rest) = digits.split_at(digits.find('.').unwrap_or(digits.len()));
    format!("{sign}{}{rest}", thousands(whole))
}

/// A round number without the zeros behind it.
fn tick(value: f64) -> String {
    let text = number(value);
    match text.contains('.') {
        true => text.trim_end_matches('0').to_owned(),
        false => text,
    }
}

/// A count, thousands apart.
pub fn count(n: usize) -> String {
    thousands(&n.to_string())
}

fn thousands(whole: &str) -> String {
    let mut out = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) && whole.len() > 3 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `#rrggbb`.
pub fn hex([r, g, b]: [u8; 3]) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

fn open(title: &str, rows: usize) -> String {
    let height = TOP + ROW * rows as f64 + AXIS;
    format!(
        "<svg role=\"img\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" font-size=\"13\" fill=\"currentColor\">\
         <title>{}</title>\n",
        escape(title)
    )
}

fn middle(row: usize) -> f64 {
    TOP + ROW * (row as f64 + 0.5)
}

fn name(svg: &mut String, middle: f64, name: &str) {
    let short = if name.chars().count() > NAME_CHARS {
        let start: String = name.chars().take(NAME_CHARS - 1).collect();
        format!("{start}…")
    } else {
        name.to_owned()
    };
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
        LEFT - 8.0,
        middle + 4.5,
        escape(&short)
    );
}

/// An axis from one round number to another.
struct Scale {
    low: f64,
    high: f64,
    step: f64,
}

impl Scale {
    fn over(low: f64, high: f64) -> Self {
        let span = if high - low > 1e-9 * high.abs().max(1e-9) {
            high - low
        } else {
            high.abs().max(1.0)
        };
        let rough = span / 4.0;
        let power = 10f64.powi(rough.log10().floor() as i32);
        let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power);
        let step = step
            .into_iter()
            .find(|s| *s >= rough * 0.999)
            .unwrap_or(power);
        Self {
            low: (low / step).floor() * step,
            high: ((high / step).ceil() * step).max((low / step).floor() * step + step),
            step,
        }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value - self.low) / (self.high - self.low);
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }

    fn draw(&self, svg: &mut String, rows: usize, label: &str) {
        let bottom = TOP + ROW * rows as f64;
        let ticks = ((self.high - self.low) / self.step).round() as usize;
        for i in 0..=ticks {
            let value = self.low + self.step * i as f64;
            let _ = writeln!(
                svg,
                "<path d=\"M{x:.1} {TOP}V{bottom}\" stroke=\"var(--rule)\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"12\">{}</text>",
                bottom + 16.0,
                tick(value),
                x = self.at(value),
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"12\">{}</text>",
            (LEFT + WIDTH - RIGHT) / 2.0,
            bottom + 33.0,
            escape(label)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_people_write_them() {
        let cases = [
            (0.0, "0"),
            (-0.0001, "−0.000100"),
            (1234567.8, "1,234,568"),
            (-1234.0, "−1,234"),
            (12.345, "12.3"),
            (2.0, "2"),
            (0.4567, "0.457"),
            (999.96, "1,000"),
            (f64::NAN, "–"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
        assert_eq!((number(-1e-9), tick(0.2)), ("0".into(), "0.2".into()));
        assert_eq!((count(0), count(1751)), ("0".into(), "1,751".into()));
    }

    #[test]
    fn a_box_lies_where_its_quantiles_are() {
        let group = || Group {
            name: "a & b",
            colour: [0, 114, 178],
        };
        let quantiles = Quantiles {
            count: 9,
            at: [0.0, 10.0, 20.0, 30.0, 40.0],
        };
        let svg = boxes(
            "area",
            "µm²",
            &[(group(), Some(quantiles)), (group(), None)],
        );
        // 0 to 40 over 112 to 376 px: 20 is the middle.
        assert!(svg.contains("M244.0 13.0v20"), "{svg}");
        assert!(
            svg.contains("x=\"178.0\" y=\"13.0\" width=\"132.0\""),
            "{svg}"
        );
        assert!(svg.contains("a &amp; b") && svg.contains("#0072b2"));
        assert!(boxes("area", "", &[(group(), None)]).contains("no value"));
        assert!(bars("n", "", &[(group(), 0.0)]).contains(">0</text>"));
    }

    #[test]
    fn one_value_for_all_still_has_an_axis() {
        for value in [0.0, 1.0, -3.0, 1e6] {
            let scale = Scale::over(value, value);
            assert!(scale.low <= value && value <= scale.high && scale.low < scale.high);
        }
    }
}

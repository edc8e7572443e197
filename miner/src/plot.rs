//! `iop-miner bench --plot FILE`: a bar chart of the measurements as an SVG.

use std::fmt::Write;

use crate::bench::{Measurement, many};
use crate::stats::HashRate;

const BAR: usize = 18;
const STEP: usize = 28;
const LEFT: usize = 250;
const LONGEST: f64 = 480.0;

/// One bar per measurement, in order, each with its rate and, if known, its percentage of the CPU's limit. `title`
/// names the machine.
#[must_use]
pub fn svg(title: &str, measurements: &[Measurement]) -> String {
    let most = measurements.iter().map(|one| one.hashes_per_second).fold(0.0, f64::max);
    let height = 60 + STEP * measurements.len();
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"960\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"16\" y=\"26\" font-size=\"15\">{}</text>\n",
        escape(title)
    );
    for (i, one) in measurements.iter().enumerate() {
        let width = if most > 0.0 { one.hashes_per_second / most * LONGEST } else { 0.0 };
        let top = 44 + STEP * i;
        let text = top + BAR - 4;
        let (threads, versions) = (many(one.threads, "thread"), many(one.versions, "version"));
        let label = escape(&format!("{}, {threads}, {versions}", one.kernel));
        let of_limit = one
            .fraction_of_limit
            .map_or(String::new(), |part| format!(", {:.0} % of the limit", part * 100.0));
        let rate = HashRate(one.hashes_per_second);
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{text}\" text-anchor=\"end\">{label}</text>\n\
             <rect x=\"{LEFT}\" y=\"{top}\" width=\"{width:.1}\" height=\"{BAR}\" fill=\"#3b6ea5\"/>\n\
             <text x=\"{:.1}\" y=\"{text}\">{rate}{of_limit}</text>",
            LEFT - 8,
            LEFT as f64 + width + 6.0,
        );
    }
    out.push_str("</svg>\n");
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_measurement_has_its_bar_and_the_fastest_the_longest() {
        let measurement = |kernel, rate| Measurement {
            kernel,
            device: "cpu".to_owned(),
            threads: 1,
            versions: 1,
            hashes: 1,
            seconds: 1.0,
            hashes_per_second: rate,
            cycles_per_hash: None,
            core_cycles_per_hash: None,
            fraction_of_limit: Some(0.5),
        };
        let svg = svg("A <CPU> & more", &[measurement("fast", 4e6), measurement("slow", 1e6)]);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
        assert!(
            svg.contains("A &lt;CPU&gt; &amp; more") && svg.contains("4.00 MH/s, 50 % of the limit"),
            "{svg}"
        );
        assert!(svg.contains("width=\"480.0\"") && svg.contains("width=\"120.0\""), "{svg}");
        assert_eq!(svg.matches("<rect").count(), svg.matches("/>").count());
    }
}

//! Latency and throughput against load, as SVG.

use plotters::prelude::*;

use crate::error::LoadError;

/// A line of a plot.
#[derive(Clone, Debug)]
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

const SIZE: (u32, u32) = (560, 340);
const COLOURS: [RGBColor; 4] = [
    RGBColor(31, 119, 180),
    RGBColor(255, 127, 14),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
];

/// Draws lines over common axes, both from 0 on.
pub fn svg(title: &str, x: &str, y: &str, lines: &[Line]) -> Result<String, LoadError> {
    let mut text = String::new();
    draw(&mut text, title, (x, y), lines).map_err(|error| LoadError::Plot(error.to_string()))?;
    Ok(text)
}

fn draw(
    text: &mut String,
    title: &str,
    (x, y): (&str, &str),
    lines: &[Line],
) -> Result<(), Box<dyn std::error::Error>> {
    let most = |get: fn(&(f64, f64)) -> f64| {
        let points = lines.iter().flat_map(|line| &line.points);
        let most = points.map(get).fold(0.0, f64::max);
        if most > 0.0 { most * 1.08 } else { 1.0 }
    };
    let (x_most, y_most) = (most(|point| point.0), most(|point| point.1));
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 17))
        .margin(12)
        .x_label_area_size(38)
        .y_label_area_size(58)
        .build_cartesian_2d(0.0..x_most, 0.0..y_most)?;
    chart.configure_mesh().x_desc(x).y_desc(y).draw()?;
    for (i, line) in lines.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let points = line.points.iter().copied();
        chart
            .draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?
            .label(line.name.clone())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour));
        chart.draw_series(points.map(|point| Circle::new(point, 3, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_drawn() {
        let line = |name: &str, points: &[(f64, f64)]| Line {
            name: name.to_owned(),
            points: points.to_vec(),
        };
        let lines = [
            line("p50", &[(1.0, 2.0), (2.0, 9.0)]),
            line("a<b", &[(1.0, 3.0)]),
        ];
        let text = svg("title", "load", "ms", &lines).unwrap();
        assert_eq!(text.matches("<circle").count(), 3);
        assert!(text.contains("a&lt;b") && text.contains("title"), "{text}");
        assert!(svg("empty", "x", "y", &[]).is_ok());
    }
}

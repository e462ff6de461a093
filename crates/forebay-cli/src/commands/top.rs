//! `forebay top`: all curves of all runs in the terminal, live.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use forebay_history::Run;

use crate::args::{Across, Top};
use crate::chart::{self, Area, Axes, Curve, Grid, Style};
use crate::commands::plot::points_of;
#[cfg(unix)]
use crate::commands::runs::{as_json, as_number};
use crate::error::{Error, FOREIGN};
use crate::folder::{self, Budget};
use crate::out::{Out, count, number, width, without_middle};
use crate::screen::Key;

/// Time between two looks at the files.
const INTERVAL: Duration = Duration::from_secs(1);
/// Time after which a look goes on later.
const MOMENT: Duration = Duration::from_millis(50);
/// Looks between two searches for new runs.
const LOOKS: u32 = 5;
/// Points of a curve: several for each dot of a wide terminal.
const MAX_POINTS: usize = 4_096;
/// Runs that may have a file open between two looks.
const MAX_OPEN: usize = 64;
/// Curves of a chart. More look alike.
const MAX_CURVES: usize = 20;
/// The smallest chart with axes.
const MIN_CHART: (usize, usize) = (28, 7);
/// Columns of the list of runs, and of the mark in front of each.
const LIST: usize = 26;
const MARK: usize = 2;
/// What the names of metrics begin with that tell of the machine.
const SYSTEM: &str = "system.";
/// How much less is seen after a turn of the wheel; and the least part of an axis that is made smaller.
const ZOOM: f64 = 1.5;
const MIN_PART: f64 = 1e-4;

const HELP: [&str; 19] = [
    "up down     choose a run",
    "space       show or hide it",
    "a           show all, or none but it",
    "n p         next and previous page of charts (also PgDn, PgUp)",
    "tab         choose a chart",
    "enter       that chart alone, and back",
    "+ -         see less or more of the axis",
    "left right  move along it",
    "0           see all of it",
    "/           metrics with these letters in their names",
    "s S         smooth more, less",
    "l           logarithmic axis",
    "x           steps, or time since the begin",
    "wheel       see less or more of the axis there",
    "click       choose a run or a chart; again: that chart alone",
    "            on the mark of a run: show or hide it",
    "shift-drag  select text, in most terminals",
    "h ?         this help",
    "q           end",
];

/// A run that is followed.
pub(crate) struct Followed {
    name: String,
    folder: PathBuf,
    run: Result<Run, Error>,
    /// Why its files could not be read at the last look.
    error: Option<Error>,
    is_shown: bool,
}

impl Followed {
    /// Returns the run, or why it cannot be read.
    fn readable(&self) -> Result<&Run, String> {
        match (&self.run, &self.error) {
            (Err(error), _) | (Ok(_), Some(error)) => Err(error.to_string()),
            (Ok(run), None) if folder::is_foreign(run) => Err(FOREIGN.to_owned()),
            (Ok(run), None) => Ok(run),
        }
    }
}

/// What the mouse may point at, by its place among its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Run(usize),
    Chart {
        place: usize,
        /// Where its curves are, beside the labels of its axis.
        curves: Area,
    },
}

/// What is shown, and how.
pub(crate) struct View {
    title: String,
    open: Open,
    runs: Vec<Followed>,
    chosen: usize,
    filter: String,
    /// Whether keys belong to the filter.
    is_typing: bool,
    smooth: f64,
    is_log: bool,
    across: Across,
    page: usize,
    chart: usize,
    is_alone: bool,
    /// The part of the axis that is seen: from 0 to 1.
    part: (f64, f64),
    is_help: bool,
    /// Where the runs and the charts are that were drawn last.
    targets: Vec<(Area, Target)>,
    budget: Budget,
    /// The run that is looked at next, and whether one before it has more.
    next: usize,
    has_more: bool,
}

#[cfg(not(unix))]
pub(crate) fn run(_: &Top, _: &mut Out) -> Result<u8, Error> {
    Err(Error::Asked("top needs a terminal of Unix: `forebay serve` shows the same in a browser".to_owned()))
}

#[cfg(unix)]
pub(crate) fn run(asked: &Top, out: &mut Out) -> Result<u8, Error> {
    if asked.json {
        return print(asked, out);
    }
    let mut view = View::of(&asked.folders.paths, !asked.once)?;
    view.filter = asked.filter.clone().unwrap_or_default();
    if asked.once {
        while view.look() {}
        let (columns, rows) = crate::screen::size().unwrap_or((80, 24));
        let grid = view.draw(asked.width.unwrap_or(columns), asked.height.unwrap_or(rows), SystemTime::now());
        for line in grid.lines(out.has_colours()) {
            out.line(line)?;
        }
        return Ok(0);
    }
    let failed = |error: std::io::Error| Error::Asked(format!("the terminal: {error}"));
    let Some(mut screen) = crate::screen::Screen::take(out.has_colours()).map_err(failed)? else {
        return Err(Error::Asked("top needs a terminal: --once prints what it would show".to_owned()));
    };
    let (mut last_look, mut looks, mut has_more) = (Instant::now(), 0_u32, true);
    let (mut size, mut is_old) = ((0, 0), true);
    loop {
        if has_more || last_look.elapsed() >= INTERVAL {
            if !has_more {
                last_look = Instant::now();
                looks = looks.wrapping_add(1);
                if looks.is_multiple_of(LOOKS) {
                    view.add_new(&asked.folders.paths);
                }
            }
            has_more = view.look();
            is_old = true;
        }
        let now = crate::screen::size().unwrap_or((80, 24));
        if std::mem::take(&mut is_old) || now != size {
            size = now;
            screen.show(view.draw(size.0, size.1, SystemTime::now())).map_err(failed)?;
        }
        let Some(keys) = screen.keys().map_err(failed)? else { return Ok(0) };
        is_old = !keys.is_empty();
        for key in keys {
            if !view.press(key) {
                return Ok(0);
            }
        }
    }
}

impl View {
    /// Makes a view of the runs at these paths; for a live one, no server is waited for.
    pub(crate) fn of(paths: &[PathBuf], is_live: bool) -> Result<Self, Error> {
        let folders = folder::find(paths)?;
        let open: Open = if is_live { folder::open_live } else { folder::open_run };
        let runs = folders
            .into_iter()
            .enumerate()
            .map(|(place, (name, folder))| Followed::new(name, folder, open, MAX_POINTS, place < MAX_CURVES));
        Ok(Self {
            title: folder::title(paths),
            open,
            runs: runs.collect(),
            chosen: 0,
            filter: String::new(),
            is_typing: false,
            smooth: 0.0,
            is_log: false,
            across: Across::Step,
            page: 0,
            chart: 0,
            is_alone: false,
            part: (0.0, 1.0),
            is_help: false,
            targets: Vec::new(),
            budget: Budget::new(MAX_POINTS),
            next: 0,
            has_more: false,
        })
    }

    /// Looks at the files of all runs, for a moment: keys are to be heard while large files are read. Returns whether there is more.
    pub(crate) fn look(&mut self) -> bool {
        let (count, began) = (self.runs.len(), Instant::now());
        while let Some(it) = self.runs.get_mut(self.next) {
            self.next += 1;
            if it.run.is_err() {
                it.run = (self.open)(&it.folder).map(|run| run.with_max_points(self.budget.max_points));
            }
            if let Ok(run) = &mut it.run {
                // What cannot be read now may be later.
                let more = match run.poll() {
                    Ok(more) => {
                        it.error = None;
                        more
                    }
                    Err(error) => {
                        it.error = Some(error.into());
                        false
                    }
                };
                self.has_more |= more;
                if count > MAX_OPEN && !more {
                    run.release();
                }
            }
            if began.elapsed() > MOMENT {
                return true;
            }
        }
        self.next = 0;
        let kept = |runs: &[Followed]| runs.iter().flat_map(|it| &it.run).map(Run::kept).sum();
        while self.budget.is_over(kept(&self.runs)) {
            let max_points = self.budget.max_points;
            self.runs.iter_mut().flat_map(|it| &mut it.run).for_each(|run| run.limit(max_points));
        }
        std::mem::take(&mut self.has_more)
    }

    fn add_new(&mut self, paths: &[PathBuf]) {
        let known: HashSet<PathBuf> = self.runs.iter().map(|it| it.folder.clone()).collect();
        for (name, folder) in folder::find_new(paths, &known) {
            let is_shown = self.runs.len() < MAX_CURVES;
            let max_points = self.budget.max_points;
            self.runs.push(Followed::new(name, folder, self.open, max_points, is_shown));
        }
    }

    /// Does what a key says. Returns false for the end.
    pub(crate) fn press(&mut self, key: Key) -> bool {
        if key == Key::Interrupt {
            return false;
        }
        if self.is_typing {
            if matches!(key, Key::Click(..) | Key::WheelUp(..) | Key::WheelDown(..)) {
                return true;
            }
            match key {
                Key::Letter(letter) if self.filter.len() < 200 => self.filter.push(letter),
                Key::Backspace => _ = self.filter.pop(),
                Key::Enter => self.is_typing = false,
                Key::Escape => {
                    self.is_typing = false;
                    self.filter.clear();
                }
                _ => {}
            }
            (self.page, self.chart) = (0, 0);
            return true;
        }
        if std::mem::take(&mut self.is_help) {
            return key != Key::Letter('q');
        }
        let (left, right) = self.part;
        let size = right - left;
        let charts = self.metrics().len();
        match key {
            Key::Letter('q') => return false,
            Key::Letter('h' | '?') => self.is_help = true,
            Key::Letter('/') => self.is_typing = true,
            Key::Up | Key::Letter('k') => self.chosen = self.chosen.saturating_sub(1),
            Key::Down | Key::Letter('j') => {
                self.chosen = (self.chosen + 1).min(self.runs.len().saturating_sub(1))
            }
            Key::Letter(' ') => {
                if let Some(it) = self.runs.get_mut(self.chosen) {
                    it.is_shown = !it.is_shown;
                }
            }
            Key::Letter('a') => {
                let is_all = self.runs.iter().all(|it| it.is_shown);
                for (place, it) in self.runs.iter_mut().enumerate() {
                    it.is_shown = !is_all || place == self.chosen;
                }
            }
            Key::Letter('n') | Key::PageDown => self.page += 1,
            Key::Letter('p') | Key::PageUp => self.page = self.page.saturating_sub(1),
            Key::Home => self.page = 0,
            Key::End => self.page = usize::MAX,
            Key::Tab => self.chart = (self.chart + 1) % charts.max(1),
            Key::Enter => self.is_alone = !self.is_alone,
            Key::Escape => self.is_alone = false,
            Key::Letter('s') => self.smooth = next(self.smooth, 1),
            Key::Letter('S') => self.smooth = next(self.smooth, -1),
            Key::Letter('l') => self.is_log = !self.is_log,
            Key::Letter('x') => {
                self.across = if self.across == Across::Step { Across::Time } else { Across::Step };
            }
            // The right end stays: it is where what is new comes.
            Key::Letter('+' | '=') if size > MIN_PART => self.part.0 = right - size / 2.0,
            Key::Letter('-') => self.part.0 = (right - size * 2.0).max(0.0),
            Key::Letter('0') => self.part = (0.0, 1.0),
            Key::Left => {
                let by = (size / 4.0).min(left);
                self.part = (left - by, right - by);
            }
            Key::Right => {
                let by = (size / 4.0).min(1.0 - right);
                self.part = (left + by, right + by);
            }
            Key::Click(..) | Key::WheelUp(..) | Key::WheelDown(..) => self.point(key),
            _ => {}
        }
        true
    }

    /// Does what the mouse says.
    fn point(&mut self, key: Key) {
        let (Key::Click(column, row) | Key::WheelUp(column, row) | Key::WheelDown(column, row)) = key else {
            return;
        };
        let is_in = |area: &Area| {
            (area.left..area.left + area.width).contains(&column)
                && (area.top..area.top + area.height).contains(&row)
        };
        let Some((_, target)) = self.targets.iter().find(|(area, _)| is_in(area)).copied() else { return };
        match (target, key) {
            (Target::Run(place), Key::Click(..)) => {
                self.chosen = place;
                if let Some(it) = self.runs.get_mut(place).filter(|_| column < MARK) {
                    it.is_shown = !it.is_shown;
                }
            }
            (Target::Run(_), _) => {
                _ = self.press(if matches!(key, Key::WheelUp(..)) { Key::Up } else { Key::Down })
            }
            (Target::Chart { place, .. }, Key::Click(..)) => {
                // The first click chooses, and the next one is as enter.
                self.is_alone ^= self.is_alone || self.chart == place;
                self.chart = place;
            }
            (Target::Chart { curves, .. }, _) => {
                let (left, right) = self.part;
                let size = right - left;
                // The middle of a cell, which has two columns of dots.
                let dots = (2 * curves.width.max(1) - 1) as f64;
                let at = ((2 * column.saturating_sub(curves.left)) as f64 + 0.5) / dots;
                let at = left + size * at.min(1.0);
                let wanted = match key {
                    Key::WheelUp(..) if size > MIN_PART => size / ZOOM,
                    Key::WheelUp(..) => size,
                    _ => (size * ZOOM).min(1.0),
                };
                // All but nothing is all of it.
                let wanted = if wanted > 1.0 - MIN_PART { 1.0 } else { wanted };
                // What is under the pointer stays there, unless an end of the axis comes in.
                let left = (at - (at - left) * wanted / size).clamp(0.0, 1.0 - wanted);
                self.part = (left, left + wanted);
            }
        }
    }

    /// Returns the names of the metrics that are asked for, each with the runs that have it. Those of the machine come last.
    fn metrics(&self) -> Vec<(&str, Vec<usize>)> {
        let mut metrics: BTreeMap<(bool, &str), Vec<usize>> = BTreeMap::new();
        let filter = self.filter.to_lowercase();
        for (place, it) in self.runs.iter().enumerate() {
            let Some(run) = it.run.as_ref().ok().filter(|_| it.is_shown) else { continue };
            for name in run.names().filter(|name| filter.is_empty() || name.to_lowercase().contains(&filter))
            {
                metrics.entry((name.starts_with(SYSTEM), name)).or_default().push(place);
            }
        }
        metrics.into_iter().map(|((_, name), runs)| (name, runs)).collect()
    }

    /// Draws all of it.
    pub(crate) fn draw(&mut self, columns: usize, rows: usize, now: SystemTime) -> Grid {
        // What terminals have, and more than any.
        let (columns, rows) = (columns.clamp(1, 1_000), rows.clamp(1, 500));
        let mut grid = Grid::new(columns, rows);
        self.chosen = self.chosen.min(self.runs.len().saturating_sub(1));
        let faint = Style::of(245);
        let (has_head, has_foot) = (rows >= 3, rows >= 5);
        let top = usize::from(has_head);
        let bottom = rows - usize::from(has_foot);
        let mut targets = std::mem::take(&mut self.targets);
        targets.clear();
        if self.is_help {
            grid.text(0, 0, columns, "forebay top: any key closes this", bold());
            for (row, line) in HELP.iter().enumerate() {
                grid.text(1, 2 + row, columns, line, Style::default());
            }
            return grid;
        }
        let has_list = columns > MIN_CHART.0 + LIST && rows >= 10;
        let left = if has_list { LIST + 1 } else { 0 };
        if has_list {
            self.draw_runs(&mut grid, top, bottom, now, &mut targets);
        }
        let area = Area { left, top, width: columns - left, height: bottom.saturating_sub(top) };
        let (page, pages) = self.draw_charts(&mut grid, area, &mut targets);
        (self.page, self.targets) = (page, targets);
        if has_head {
            let running = self
                .runs
                .iter()
                .filter(|it| it.run.as_ref().is_ok_and(|run| folder::status(run, now) == "running"));
            let mut head = format!(
                "{}  {}, {} running",
                self.title,
                count(self.runs.len() as u64, "run"),
                running.count()
            );
            if pages > 1 {
                head += &format!("  page {} of {pages}", page + 1);
            }
            for (is_on, what) in [
                (self.is_log, "log".to_owned()),
                (self.smooth > 0.0, format!("smooth {}", self.smooth)),
                (self.across == Across::Time, "seconds".to_owned()),
                (self.part != (0.0, 1.0), "part".to_owned()),
            ] {
                if is_on {
                    head += &format!("  {what}");
                }
            }
            grid.text(0, 0, columns, &head, bold());
        }
        if has_foot {
            let (text, style) = match (self.is_typing, self.filter.is_empty()) {
                (true, _) => (format!("/{}_  (enter: done, esc: all)", self.filter), Style::default()),
                (false, false) => (format!("/{}  h help  q end", self.filter), faint),
                (false, true) => {
                    ("h help  q end  / filter  space show  n p page  enter one  + - zoom".to_owned(), faint)
                }
            };
            grid.text(0, rows - 1, columns, &text, style);
        }
        grid
    }

    fn draw_runs(
        &self,
        grid: &mut Grid,
        top: usize,
        bottom: usize,
        now: SystemTime,
        targets: &mut Vec<(Area, Target)>,
    ) {
        let faint = Style::of(245);
        // The chosen run has its details below.
        let details = 6.min((bottom - top) / 2);
        let room = bottom - top - details;
        let first = (self.chosen + 1).saturating_sub(room);
        for (row, (place, it)) in self.runs.iter().enumerate().skip(first).take(room).enumerate() {
            let style = Style { is_inverse: place == self.chosen, ..Style::default() };
            let mark = if it.is_shown { "● " } else { "○ " };
            let area = Area { left: 0, top: top + row, width: LIST, height: 1 };
            targets.push((area, Target::Run(place)));
            grid.text(
                0,
                top + row,
                MARK,
                mark,
                Style { is_inverse: false, ..Style::of(chart::colour(place)) },
            );
            let status = it.readable().map_or("unreadable", |run| folder::status(run, now));
            let colour = match status {
                "failed" | "vanished" | "unreadable" => Style::of(160),
                "running" => Style::of(34),
                _ => faint,
            };
            let size = width(status).min(10);
            let room = LIST - 1 - MARK - size;
            grid.text(MARK, top + row, room, &without_middle(&it.name, room), style);
            grid.text(LIST - size, top + row, size, status, colour);
        }
        let Some(it) = self.runs.get(self.chosen) else { return };
        let mut lines = vec![it.name.clone()];
        match it.readable() {
            Ok(run) => {
                lines.extend(folder::reason(run).map(str::to_owned));
                let step =
                    run.names().filter_map(|name| run.series(name)?.last()).map(|point| point.step).max();
                let age = run
                    .last_event()
                    .map_or_else(String::new, |last| format!(", {} ago", folder::age(last, now)));
                lines.push(format!(
                    "step {}{age}",
                    step.map_or_else(|| "-".to_owned(), |step| step.to_string())
                ));
                if run.missing() > 0 {
                    lines.push(format!("{} events lost", run.missing()));
                }
                // In turn: there is room for a few lines, and one kind has often dozens.
                let mut system = system_of(run).map(|(name, value)| format!("{name} {}", number(value)));
                let mut settings = run.settings().iter().map(|(name, value)| format!("{name} = {value}"));
                while lines.len() < details {
                    let before = lines.len();
                    lines.extend(system.next());
                    lines.extend(settings.next());
                    if lines.len() == before {
                        break;
                    }
                }
            }
            Err(error) => lines.push(error),
        }
        for (row, line) in lines.iter().take(details.saturating_sub(1)).enumerate() {
            let style = if row == 0 { bold() } else { faint };
            grid.text(0, bottom - details + 1 + row, LIST, line, style);
        }
    }

    /// Draws the charts of a page. Returns its number, and how many pages there are.
    fn draw_charts(&self, grid: &mut Grid, area: Area, targets: &mut Vec<(Area, Target)>) -> (usize, usize) {
        let metrics = self.metrics();
        if area.width == 0 || area.height == 0 {
            return (0, 1);
        }
        if metrics.is_empty() {
            let what = if self.filter.is_empty() { "no metrics yet" } else { "no metric fits" };
            grid.text(area.left, area.top, area.width, what, Style::of(245));
            return (0, 1);
        }
        let chosen = self.chart.min(metrics.len() - 1);
        let (across, down) = match self.is_alone {
            true => (1, 1),
            false => ((area.width / MIN_CHART.0).clamp(1, 4), (area.height / MIN_CHART.1).clamp(1, 6)),
        };
        // No more places than charts.
        let across = across.min(metrics.len());
        let down = down.min(metrics.len().div_ceil(across));
        let on_page = across * down;
        let pages = if self.is_alone { 1 } else { metrics.len().div_ceil(on_page) };
        let page = self.page.min(pages - 1);
        let first = if self.is_alone { chosen } else { page * on_page };
        for (place, (name, runs)) in metrics.iter().enumerate().skip(first).take(on_page) {
            let (column, row) = ((place - first) % across, (place - first) / across);
            let at = |number: usize, of: usize, size: usize| number * size / of;
            let (left, right) = (at(column, across, area.width), at(column + 1, across, area.width));
            let (top, bottom) = (at(row, down, area.height), at(row + 1, down, area.height));
            let gap = usize::from(column + 1 < across);
            let own = Area {
                left: area.left + left,
                top: area.top + top,
                width: (right - left).saturating_sub(gap),
                height: bottom - top,
            };
            let is_chosen = place == chosen && !self.is_alone && metrics.len() > 1;
            let curves = self.draw_chart(grid, own, name, runs, is_chosen);
            targets.push((own, Target::Chart { place, curves }));
        }
        (page, pages)
    }

    /// Draws a chart, and returns where its curves are.
    fn draw_chart(&self, grid: &mut Grid, area: Area, name: &str, runs: &[usize], is_chosen: bool) -> Area {
        let mut curves = Vec::new();
        for place in runs.iter().take(MAX_CURVES) {
            let it = &self.runs[*place];
            let Ok(run) = &it.run else { continue };
            let Some(series) = run.series(name) else { continue };
            let mut points = points_of(series, run, self.across);
            chart::smooth(&mut points, self.smooth);
            curves.push(Curve { name: it.name.clone(), colour: *place, points });
        }
        let mut inner = area;
        if area.height >= 2 {
            let last = match &curves[..] {
                [one] => {
                    one.points.last().map_or_else(String::new, |(_, value)| format!(" {}", number(*value)))
                }
                _ => String::new(),
            };
            let style = Style { is_inverse: is_chosen, ..bold() };
            let taken = grid.text(area.left, area.top, area.width.saturating_sub(width(&last)), name, style);
            grid.text(area.left + taken, area.top, area.width - taken, &last, Style::of(245));
            (inner.top, inner.height) = (area.top + 1, area.height - 1);
        }
        let mut axes = Axes { is_log: self.is_log, across: None };
        if self.part != (0.0, 1.0) {
            let all = curves.iter().flat_map(|curve| &curve.points).map(|(across, _)| *across);
            let (low, high) =
                all.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), it| (low.min(it), high.max(it)));
            if low < high {
                let at = |part: f64| low + (high - low) * part;
                axes.across = Some((at(self.part.0), at(self.part.1)));
            }
        }
        chart::draw(grid, inner, &curves, axes, false)
    }
}

/// Prints an object for each run: of the last and the best values alone, so one run after the other.
#[cfg(unix)]
fn print(asked: &Top, out: &mut Out) -> Result<u8, Error> {
    let filter = asked.filter.clone().unwrap_or_default().to_lowercase();
    let (now, mut is_any) = (SystemTime::now(), false);
    folder::read_whole(&asked.folders.paths, &mut |name, run| match run {
        Ok(run) => {
            is_any = true;
            let mut all = as_json(&name, &run, now, |name| name.to_lowercase().contains(&filter));
            let system = system_of(&run).map(|(name, value)| (name.to_owned(), as_number(value)));
            all["system"] = serde_json::Value::Object(system.collect());
            out.json(all)
        }
        Err(error) => out.json(serde_json::json!({ "name": name, "error": error.to_string() })),
    })?;
    Ok(if is_any { 0 } else { 2 })
}

impl Followed {
    fn new(name: String, folder: PathBuf, open: Open, max_points: usize, is_shown: bool) -> Self {
        let run = open(&folder).map(|run| run.with_max_points(max_points));
        Self { name, folder, run, error: None, is_shown }
    }
}

/// Opens a run.
type Open = fn(&std::path::Path) -> Result<Run, Error>;

fn bold() -> Style {
    Style { is_bold: true, ..Style::default() }
}

/// Returns the last values of what a run says of its machine, each under its short name.
fn system_of(run: &Run) -> impl Iterator<Item = (&str, f64)> {
    run.names().filter_map(|name| Some((name.strip_prefix(SYSTEM)?, run.series(name)?.last()?.value)))
}

/// Returns the weight of smoothing after or before another.
fn next(weight: f64, by: isize) -> f64 {
    const WEIGHTS: [f64; 5] = [0.0, 0.6, 0.9, 0.97, 0.99];
    let place = WEIGHTS.iter().position(|it| *it >= weight).unwrap_or(0);
    WEIGHTS[place.saturating_add_signed(by).min(WEIGHTS.len() - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a view of one run, with a spike at one of 101 steps.
    fn view(folder: &std::path::Path, spike: usize) -> View {
        let line = |step: usize| {
            let value = if step == spike { 12_345.678 } else { 0.0 };
            format!(
                "{{\"name\":\"loss\",\"time\":\"2026-11-21T08:00:00Z\",\"step\":{step},\"scalar\":{value:?}}}\n"
            )
        };
        std::fs::write(folder.join("events.jsonl"), (0..=100).map(line).collect::<String>()).unwrap();
        let mut view = View::of(&[folder.to_owned()], true).unwrap();
        while view.look() {}
        view
    }

    /// Returns the column and the row of the dot at the top of the chart.
    fn top_of(view: &mut View) -> (usize, usize) {
        let grid = view.draw(60, 14, SystemTime::UNIX_EPOCH);
        let is_dot = |letter: char| ('\u{2801}'..='\u{28ff}').contains(&letter);
        let find = |row: usize| grid.row(row).iter().position(|cell| cell.letter.is_some_and(is_dot));
        (0..grid.height).find_map(|row| Some((find(row)?, row))).unwrap()
    }

    #[test]
    fn what_is_under_the_pointer_stays_there_when_the_wheel_turns() {
        let folder = tempfile::tempdir().unwrap();
        for spike in [10, 50, 90] {
            let mut view = view(folder.path(), spike);
            let (column, row) = top_of(&mut view);
            // The spike is somewhere in its cell: each turn adds to its distance from the middle of that.
            for _ in 0..2 {
                assert!(view.press(Key::WheelUp(column, row)));
                let now = top_of(&mut view);
                assert!(now.0.abs_diff(column) <= 1 && now.1 == row, "{spike}: {now:?}, {column}");
            }
            assert!(view.part.1 - view.part.0 < 0.5, "{:?}", view.part);
        }
    }

    #[test]
    fn the_mouse_does_nothing_beside_all_targets_or_while_a_filter_is_typed() {
        let folder = tempfile::tempdir().unwrap();
        let mut view = view(folder.path(), 50);
        let (column, row) = top_of(&mut view);
        let state = |view: &View| (view.page, view.chart, view.part, view.chosen, view.is_alone);
        let before = state(&view);
        // The lines at the top and at the bottom belong to no chart.
        for place in [(column, 0), (column, 13), (500, 500)] {
            for key in [Key::Click(place.0, place.1), Key::WheelUp(place.0, place.1)] {
                assert!(view.press(key));
                assert_eq!(state(&view), before, "{key:?}");
            }
        }
        (view.page, view.chart) = (3, 2);
        let before = state(&view);
        assert!(view.press(Key::Letter('/')));
        for key in [Key::Click(column, row), Key::WheelUp(column, row), Key::WheelDown(column, row)] {
            assert!(view.press(key));
            assert_eq!(state(&view), before, "{key:?}");
        }
        assert!(view.press(Key::Letter('l')) && view.page == 0);
    }

    #[test]
    fn settings_are_seen_beside_many_metrics_of_the_machine() {
        let folder = tempfile::tempdir().unwrap();
        let system = |number: usize| {
            format!("{{\"name\":\"system.gpu.{number}\",\"time\":\"2026-11-21T08:00:00Z\",\"scalar\":1.5}}\n")
        };
        let begin = "{\"name\":\"training.started\",\"time\":\"2026-11-21T08:00:00Z\",\"fields\":{\"run_id\":\"a\",\"config\":{\"lr\":0.02}}}\n";
        let lines: String = std::iter::once(begin.to_owned()).chain((0..40).map(system)).collect();
        std::fs::write(folder.path().join("events.jsonl"), lines).unwrap();
        let mut view = View::of(&[folder.path().to_owned()], true).unwrap();
        while view.look() {}
        let grid = view.draw(80, 24, SystemTime::UNIX_EPOCH);
        let text = grid.lines(false).collect::<Vec<_>>().join("\n");
        assert!(text.contains("lr = 0.02") && text.contains("gpu.0 1.5"), "{text}");
    }

    /// What cannot be read is a link to memory of no address.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_run_that_cannot_be_read_any_more_is_unreadable_until_it_can_be() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("events.jsonl");
        std::os::unix::fs::symlink("/proc/self/mem", &file).unwrap();
        let mut view = View::of(&[folder.path().to_owned()], true).unwrap();
        let shown = |view: &mut View| {
            while view.look() {}
            view.draw(80, 24, SystemTime::UNIX_EPOCH).lines(false).collect::<Vec<_>>().join("\n")
        };
        let text = shown(&mut view);
        assert!(text.contains("unreadable") && text.contains("cannot read"), "{text}");
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, "{\"name\":\"a\",\"time\":\"2026-11-21T08:00:00Z\",\"scalar\":1.5}\n").unwrap();
        let text = shown(&mut view);
        assert!(!text.contains("unreadable"), "{text}");
    }
}

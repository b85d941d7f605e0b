//! `drumline status`.

use std::io::IsTerminal as _;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use super::args::{Format, Remote};
use super::cluster_table::{render, render_error};
use super::exit::{ExitError, say};
use super::output::Output;
use super::route::Route;
use super::table::{terminal_height, terminal_width};
use super::{Exit, session};
use crate::client::Client;
use crate::config;
use crate::view::ClusterView;

/// How often `--watch` looks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// How long `--watch` tries before it says that no server answers. One server may be frozen: the next
/// is asked after 2 s.
const WATCH_TIMEOUT_MAX: Duration = Duration::from_secs(4);

/// Show nodes and members: who leads, who is down, who lags.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Look again every second until Ctrl-C
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    remote: Remote,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let settings = args.remote.settings().map_err(ExitError::from)?;
    let format = Format::choose(&settings)?;
    let Route::Servers(servers) = Route::choose(&args.remote, &settings)? else {
        return Err(ExitError::usage(
            "status asks a server, and the settings name a replica set alone: give --servers URL,... or --name NAME",
        )
        .into());
    };
    let timeout = match args.watch {
        true => settings.timeout().min(WATCH_TIMEOUT_MAX),
        false => settings.timeout(),
    };
    let client = Client::new(servers.urls, servers.key.as_ref(), timeout);
    let client = client.map_err(ExitError::from)?;
    session::block_on(async {
        match args.watch {
            true => watch(&client, format).await,
            false => once(&client, format).await,
        }
    })
}

async fn once(client: &Client, format: Format) -> anyhow::Result<Exit> {
    let view = client.status().await.map_err(ExitError::from)?;
    let mut output = Output::new(format);
    match format {
        Format::Table => {
            let lines = render(&view, terminal_width(), has_colour());
            output.line(&lines.join("\n"))?;
        }
        Format::Json => output.line(&serde_json::to_string_pretty(&view)?)?,
        Format::Jsonl => output.line(&serde_json::to_string(&view)?)?,
    }
    output.flush()?;
    Ok(match view.troubles().is_empty() {
        true => Exit::Ok,
        false => Exit::Degraded,
    })
}

async fn watch(client: &Client, format: Format) -> anyhow::Result<Exit> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut frames = Frames::new(format)?;
    let result = tokio::select! {
        result = show_all(client, &mut frames) => result,
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted.map(|()| Exit::Ok)?),
        _ = terminated.recv() => Ok(Exit::Ok),
    };
    frames.end()?;
    result
}

async fn show_all(client: &Client, frames: &mut Frames) -> anyhow::Result<Exit> {
    let mut ticks = interval(WATCH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match client.status().await {
            Ok(view) => frames.view(&view)?,
            Err(error) => frames.error(&ExitError::from(error).message)?,
        }
    }
}

pub(super) fn has_colour() -> bool {
    std::io::stdout().is_terminal() && config::env_path("NO_COLOR").is_none()
}

/// What `--watch` prints: on a terminal each table in place of the last, else one after the other.
#[derive(Debug)]
struct Frames {
    output: Output,
    format: Format,
    in_place: bool,
    colour: bool,
    /// The lines of the last frame.
    drawn: Option<usize>,
}

impl Frames {
    const HIDE_CURSOR: &str = "\u{1b}[?25l";
    const SHOW_CURSOR: &str = "\u{1b}[?25h";
    const ERASE_LINE_END: &str = "\u{1b}[K";
    const ERASE_BELOW: &str = "\u{1b}[J";

    fn new(format: Format) -> anyhow::Result<Self> {
        let mut frames = Self {
            output: Output::new(format),
            format,
            in_place: format == Format::Table && std::io::stdout().is_terminal(),
            colour: has_colour(),
            drawn: None,
        };
        frames.steer(Self::HIDE_CURSOR)?;
        Ok(frames)
    }

    fn view(&mut self, view: &ClusterView) -> anyhow::Result<()> {
        match self.format {
            Format::Table => self.draw(&render(view, terminal_width(), self.colour)),
            Format::Json | Format::Jsonl => {
                self.output.line(&serde_json::to_string(view)?)?;
                self.output.flush()
            }
        }
    }

    fn error(&mut self, message: &str) -> anyhow::Result<()> {
        if self.in_place {
            return self.draw(&render_error(message, terminal_width(), self.colour));
        }
        say(message);
        Ok(())
    }

    fn draw(&mut self, lines: &[String]) -> anyhow::Result<()> {
        if !self.in_place {
            let gap = if self.drawn.is_some() { "\n" } else { "" };
            self.output.line(&format!("{gap}{}", lines.join("\n")))?;
            self.drawn = Some(lines.len());
            return self.output.flush();
        }
        // A frame that scrolls could not be drawn over; the last line is the cursor's.
        let room = terminal_height().saturating_sub(1).max(1);
        let lines = &lines[..lines.len().min(room)];
        let mut frame = match self.drawn {
            Some(drawn @ 1..) => format!("\u{1b}[{}F", drawn.min(room)),
            _ => String::new(),
        };
        for line in lines {
            frame.push_str(line);
            frame.push_str(Self::ERASE_LINE_END);
            frame.push('\n');
        }
        frame.push_str(Self::ERASE_BELOW);
        self.drawn = Some(lines.len());
        self.output.write(&frame)?;
        self.output.flush()
    }

    /// Leaves the terminal as it was, below the last frame.
    fn end(&mut self) -> anyhow::Result<()> {
        self.steer(&format!("\r{}{}", Self::ERASE_LINE_END, Self::SHOW_CURSOR))
    }

    fn steer(&mut self, text: &str) -> anyhow::Result<()> {
        if !self.in_place {
            return Ok(());
        }
        self.output.write(text)?;
        self.output.flush()
    }
}

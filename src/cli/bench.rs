//! `drumline bench`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde::Serialize;

use super::Exit;
use super::args::{Format, Remote, whole};
use super::exit::{ExitError, say};
use super::output::Output;
use super::route::{self, Servers};
use crate::bench::{self, Comparison, Http, Plan, Report, Side, Stop, Target};
use crate::check::record::{Recorder, Writer};
use crate::client::Client;
use crate::config::Settings;
use crate::model::Namespace;

/// The numbers of clients at which --compare measures.
const COMPARE_CLIENTS: [u32; 3] = [1, 64, 256];
const CLIENTS_DEFAULT: u32 = 16;

/// Measure inserts: throughput and latency of many clients at once.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many clients [default: 16; with --compare 1,64,256]
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = whole::<u32>(1..=10_000))]
    clients: Vec<u32>,
    /// How long each measurement takes
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = whole::<u32>(1..=86_400))]
    seconds: u32,
    /// Inserts a second, all clients together; latency then counts from when an insert was due
    /// [default: as fast as the answers come]
    #[arg(long, value_name = "R", value_parser = whole::<u32>(1..=u32::MAX.into()))]
    rate: Option<u32>,
    /// Insert straight through the MongoDB driver with w:majority, past the servers
    #[arg(long)]
    direct: bool,
    /// Measure both, the driver and the servers, in turn, and print them side by side
    #[arg(long, conflicts_with_all = ["direct", "history", "rate"])]
    compare: bool,
    /// How often --compare measures each
    #[arg(long, value_name = "N", default_value_t = 3, requires = "compare", value_parser = whole::<u32>(1..=100))]
    rounds: u32,
    /// Write each operation as a line of JSON
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Leave the inserted documents where they are
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    remote: Remote,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let settings = args.remote.settings().map_err(ExitError::from)?;
    let format = Format::choose(&settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        let stop = Stop::default();
        tokio::select! {
            result = measure(&args, &settings, format, &stop), if !args.compare => result,
            result = compare(&args, &settings, format, &stop), if args.compare => result,
            exit = interrupted(&stop) => exit,
        }
    });
    runtime.shutdown_background();
    result
}

/// The first Ctrl-C ends the measurement, with figures and a clean end; the second ends the command.
async fn interrupted(stop: &Stop) -> anyhow::Result<Exit> {
    tokio::signal::ctrl_c().await?;
    stop.now();
    say("stopping; once more to stop at once");
    tokio::signal::ctrl_c().await?;
    Ok(Exit::Failed)
}

async fn measure(
    args: &Args,
    settings: &Settings,
    format: Format,
    stop: &Stop,
) -> anyhow::Result<Exit> {
    let [clients] = args.clients.as_slice() else {
        if args.clients.is_empty() {
            return measure_with(args, CLIENTS_DEFAULT, settings, format, stop).await;
        }
        return Err(ExitError::usage("--clients: one number, or --compare for several").into());
    };
    measure_with(args, *clients, settings, format, stop).await
}

async fn measure_with(
    args: &Args,
    clients: u32,
    settings: &Settings,
    format: Format,
    stop: &Stop,
) -> anyhow::Result<Exit> {
    let target = if args.direct {
        direct(args, settings).await?
    } else {
        http(args, settings)?
    };
    let plan = plan(args, clients, bench::fresh_namespace("")?);
    let (recorder, writer) = match &args.history {
        Some(path) => {
            let (recorder, writer) = Recorder::create(path)?;
            (Some(recorder), Some(writer))
        }
        None => (None, None),
    };
    let side = Side::new(target, plan.namespace.clone());
    let report = bench::run(&plan, &side.target, &side.keys, recorder.as_ref(), stop).await;
    drop(recorder);
    writer.map_or(Ok(()), Writer::finish)?;
    let report = report.map_err(anyhow::Error::msg)?;
    print_report(format, &report)?;
    clean_up(args, settings, &side).await?;
    Ok(if report.error_count() == 0 {
        Exit::Ok
    } else {
        Exit::Degraded
    })
}

async fn compare(
    args: &Args,
    settings: &Settings,
    format: Format,
    stop: &Stop,
) -> anyhow::Result<Exit> {
    let drumline = Side::new(http(args, settings)?, bench::fresh_namespace("_drumline")?);
    let direct = Side::new(
        direct(args, settings).await?,
        bench::fresh_namespace("_direct")?,
    );
    let counts = if args.clients.is_empty() {
        &COMPARE_CLIENTS[..]
    } else {
        &args.clients
    };
    let mut comparisons = Vec::new();
    for clients in counts.iter().take_while(|_| !stop.is_set()) {
        let plan = plan(args, *clients, direct.namespace.clone());
        let told = |report: &Report| {
            say(&format!(
                "{:>4} clients  {:<8}  {:>9.0}/s",
                report.clients, report.target, report.per_second
            ));
        };
        let compared = bench::compare(&plan, args.rounds, &direct, &drumline, stop, told);
        comparisons.push(compared.await.map_err(anyhow::Error::msg)?);
    }
    print_comparisons(format, &comparisons)?;
    clean_up(args, settings, &drumline).await?;
    clean_up(args, settings, &direct).await?;
    let errors: u64 = comparisons.iter().map(|comparison| comparison.errors).sum();
    Ok(if errors == 0 {
        Exit::Ok
    } else {
        Exit::Degraded
    })
}

fn plan(args: &Args, clients: u32, namespace: Namespace) -> Plan {
    Plan {
        clients,
        time: Duration::from_secs(u64::from(args.seconds)),
        rate: args.rate,
        namespace,
    }
}

fn http(args: &Args, settings: &Settings) -> Result<Target, ExitError> {
    let servers = Servers::choose(&args.remote, settings)?;
    Ok(Target::Http(Http::new(servers.urls, servers.key.as_ref())?))
}

async fn direct(args: &Args, settings: &Settings) -> anyhow::Result<Target> {
    let uri = route::mongodb(&args.remote, settings)?;
    Target::direct(&uri).await.map_err(anyhow::Error::msg)
}

async fn clean_up(args: &Args, settings: &Settings, side: &Side) -> anyhow::Result<()> {
    if args.keep {
        say(&format!("the documents stay in {}", side.namespace));
        return Ok(());
    }
    if side
        .target
        .drop(&side.namespace)
        .await
        .map_err(anyhow::Error::msg)?
    {
        return Ok(());
    }
    let client = Servers::choose(&args.remote, settings)?.client(settings)?;
    remove(&client, &side.namespace, &side.keys).await
}

async fn remove(
    client: &Client,
    namespace: &Namespace,
    keys: &Arc<AtomicI64>,
) -> anyhow::Result<()> {
    let keys = keys.load(Ordering::Relaxed);
    say(&format!(
        "removing up to {keys} documents from {namespace} (--keep leaves them)"
    ));
    bench::remove(client, namespace, keys)
        .await
        .map_err(ExitError::from)?;
    Ok(())
}

fn print_report(format: Format, report: &Report) -> anyhow::Result<()> {
    if format != Format::Table {
        return print_json(format, report);
    }
    let mut output = Output::new(format);
    let Report {
        clients,
        seconds,
        inserts,
        target,
        ..
    } = report;
    output.line(&format!(
        "{inserts} inserts by {clients} clients in {seconds:.1} s ({target})"
    ))?;
    output.line(&format!("throughput  {:>9.0} /s", report.per_second))?;
    for (name, value) in [
        ("p50", report.p50_ms),
        ("p95", report.p95_ms),
        ("p99", report.p99_ms),
        ("max", report.max_ms),
    ] {
        output.line(&format!("{name:<10}  {value:>9.2} ms"))?;
    }
    if report.not_sent_in_time > 0 {
        output.line(&format!(
            "not sent    {:>9} (the rate could not be kept)",
            report.not_sent_in_time
        ))?;
    }
    output.line(&format!(
        "errors      {:>9} {}",
        report.error_count(),
        report.errors_text()
    ))?;
    output.flush()
}

fn print_comparisons(format: Format, comparisons: &[Comparison]) -> anyhow::Result<()> {
    if format != Format::Table {
        return comparisons
            .iter()
            .try_for_each(|comparison| print_json(format, comparison));
    }
    let mut output = Output::new(format);
    output.line("           inserts/s                 p50 ms             p99 ms")?;
    output
        .line("clients    direct  drumline  ratio   direct  drumline   direct  drumline  errors")?;
    for c in comparisons {
        output.line(&format!(
            "{:>7}  {:>8.0}  {:>8.0}  {:>5.2}  {:>7.2}  {:>8.2}  {:>7.2}  {:>8.2}  {:>6}",
            c.clients,
            c.direct_per_second,
            c.drumline_per_second,
            c.ratio,
            c.direct_p50_ms,
            c.drumline_p50_ms,
            c.direct_p99_ms,
            c.drumline_p99_ms,
            c.errors,
        ))?;
    }
    output.flush()
}

fn print_json(format: Format, value: &impl Serialize) -> anyhow::Result<()> {
    let text = match format {
        Format::Json => serde_json::to_string_pretty(value)?,
        Format::Table | Format::Jsonl => serde_json::to_string(value)?,
    };
    let mut output = Output::new(format);
    output.line(&text)?;
    output.flush()
}

//! Resolves the input's names before anything is written: the input is read twice.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};
use std::path::Path;
use std::thread;
use std::time::Instant;

use comfy_table::Table;
use graphsink::loader::{Input, Sample, Units};
use graphsink::resolve::{FlaggedName, GreyZone, NameCounts, Names, ResolvedNames, Resolver, ResolverSettings, Tier};
use serde::Serialize;
use tokio::sync::oneshot;

use crate::AnyError;
use crate::args::{self, Args, Policy, Source};
use crate::number::grouped;
use crate::stop::Stop;
use crate::summary::table;

impl Args {
    /// The settings for resolving names, if requested.
    pub(crate) fn resolver_settings(&self) -> Option<ResolverSettings> {
        let deepest = match self.resolve? {
            args::Tier::Exact => Tier::Exact,
            args::Tier::Alias => Tier::Alias,
            args::Tier::Fuzzy => Tier::Fuzzy,
        };
        let policy = match self.grey_zone {
            Policy::Flag => GreyZone::Flag,
            Policy::Accept => GreyZone::Accept,
            Policy::Create => GreyZone::Create,
        };
        // No name is queried twice.
        Some(ResolverSettings::default().deepest(deepest).grey_zone(policy).cache_entries(0))
    }
}

/// An input that can be read more than once. Standard input is copied to a temporary file.
#[derive(Debug)]
pub(crate) struct Replay {
    source: Source,
    copy: Option<File>,
}

impl Replay {
    pub(crate) const fn new(source: Source) -> Self {
        Self { source, copy: None }
    }

    /// The inputs from their beginnings. Standard input is copied as it is read.
    fn first(&mut self) -> io::Result<Vec<Input>> {
        if let Source::Inputs(paths) = &self.source
            && paths.iter().any(|path| path.as_os_str() == "-")
        {
            self.copy = Some(tempfile::tempfile()?);
        }
        let copying = self.copy.as_ref().map(File::try_clone).transpose()?;
        let stdin = copying.map(|copy| Box::new(Copying { copy }) as Box<dyn Read + Send>);
        Ok(self.inputs(stdin))
    }

    /// The same, for the last time. Without a call of [`first`](Self::first) this is the only time.
    pub(crate) fn open(mut self) -> io::Result<Vec<Input>> {
        let stdin = match self.copy.take() {
            Some(mut copy) => {
                copy.rewind()?;
                Some(Box::new(copy) as Box<dyn Read + Send>)
            }
            None => None,
        };
        Ok(self.inputs(stdin))
    }

    fn inputs(&self, mut stdin: Option<Box<dyn Read + Send>>) -> Vec<Input> {
        match &self.source {
            Source::Inputs(paths) => paths
                .iter()
                .map(|path| match stdin.take_if(|_| path.as_os_str() == "-") {
                    Some(reader) => Input::Reader { name: "-".to_owned(), reader },
                    None => Input::from_arg(path),
                })
                .collect(),
            Source::Sample { seed, lines } => {
                let reader = Box::new(Sample::new(*seed, *lines).into_reader());
                vec![Input::Reader { name: "sample".to_owned(), reader }]
            }
        }
    }
}

/// Standard input, with all read data also written to a file.
struct Copying {
    copy: File,
}

impl Read for Copying {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = io::stdin().read(buffer)?;
        self.copy.write_all(&buffer[..read])?;
        Ok(read)
    }
}

/// Reads the input for its names, looks them up meanwhile, and decides them.
pub(crate) async fn resolve(
    resolver: Resolver,
    unit_rows_max: usize,
    replay: &mut Replay,
    review: Option<Review>,
    stop: &Stop,
) -> Result<(ResolvedNames, Resolved), AnyError> {
    let start = Instant::now();
    let mut names = Names::new(resolver);
    let units = Units::new(replay.first()?).keep_records(false).unit_rows_max(unit_rows_max);
    let (sender, read) = oneshot::channel();
    let asked = stop.clone();
    // A thread of its own, like the reader of the feed.
    thread::Builder::new().name("names".to_owned()).spawn(move || {
        // Errors of the input are reported when it is read to be written.
        for unit in units.map_while(Result::ok) {
            if asked.is_asked() {
                break;
            }
            if let Ok(unit) = unit.content {
                names.add(&unit);
            }
        }
        // The receiver may have been dropped if the run was stopped.
        let _ = sender.send(names);
    })?;
    let mut stop = stop.clone();
    let names = tokio::select! {
        names = read => names.map_err(|_| "the thread that reads names ended before its input")?,
        () = stop.asked() => return Err("stopped while reading names: nothing was written".into()),
    };
    let names = names.resolve().await?;
    if let Some(review) = review {
        review.write(names.flagged())?;
    }
    let counts = Resolved::new(names.counts(), start.elapsed().as_secs_f64());
    Ok((names, counts))
}

/// The decisions, for the summary; each name counts once. With `--json` its fields are a contract.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Resolved {
    names: u64,
    /// Entities of the database, by how they were found.
    exact: u64,
    alias: u64,
    fuzzy: u64,
    /// Resolved to another new name of the input.
    same_as_new: u64,
    new: u64,
    /// Possibly not new.
    flagged: u64,
    /// Time for reading the input, looking up names and deciding.
    pub(crate) seconds: f64,
}

impl Resolved {
    fn new(counts: NameCounts, seconds: f64) -> Self {
        let NameCounts { exact, alias, fuzzy, same_as_new, new, flagged, .. } = counts;
        let names = exact + alias + fuzzy + same_as_new + new + flagged;
        Self { names, exact, alias, fuzzy, same_as_new, new, flagged, seconds }
    }

    pub(crate) fn table(&self) -> Table {
        let mut table = table(
            &["", "names", "exact", "alias", "fuzzy", "same as a new one", "new", "flagged"],
            &[1, 2, 3, 4, 5, 6, 7],
        );
        let counts = [self.names, self.exact, self.alias, self.fuzzy, self.same_as_new, self.new, self.flagged];
        table.add_row(std::iter::once("resolved".to_owned()).chain(counts.map(grouped)));
        table
    }
}

/// The file of names to be reviewed.
#[derive(Debug)]
pub(crate) struct Review {
    path: String,
    file: BufWriter<File>,
}

#[derive(Serialize)]
struct Reviewed<'a> {
    #[serde(rename = "type")]
    entity_type: &'static str,
    name: &'a str,
    original_texts: &'a [std::sync::Arc<str>],
    addresses: &'a [std::sync::Arc<str>],
    decision: &'static str,
    /// The confidence of the likeliest candidate.
    confidence: f64,
    candidates: Vec<MayBe<'a>>,
}

#[derive(Serialize)]
struct MayBe<'a> {
    name: &'a str,
    /// `None` if it is new itself.
    entity_id: Option<uuid::Uuid>,
    tier: &'static str,
    confidence: f64,
}

impl Review {
    /// Creates the file, or empties it.
    pub(crate) fn create(path: &Path) -> Result<Self, AnyError> {
        let name = path.display().to_string();
        let file = File::create(path).map_err(|error| format!("{name} cannot be written: {error}"))?;
        Ok(Self { path: name, file: BufWriter::new(file) })
    }

    fn write(mut self, flagged: &[FlaggedName]) -> Result<(), AnyError> {
        self.try_write(flagged).map_err(|error| format!("{} cannot be written: {error}", self.path).into())
    }

    fn try_write(&mut self, flagged: &[FlaggedName]) -> io::Result<()> {
        for name in flagged {
            let candidates: Vec<MayBe<'_>> = name
                .candidates
                .iter()
                .map(|candidate| MayBe {
                    name: &candidate.name,
                    entity_id: candidate.id,
                    tier: candidate.tier.map_or("input", Tier::as_str),
                    confidence: candidate.confidence,
                })
                .collect();
            let reviewed = Reviewed {
                entity_type: name.key.entity_type.as_str(),
                name: &name.key.name,
                original_texts: &name.texts,
                addresses: &name.addresses,
                decision: "ambiguous",
                confidence: candidates.first().map_or(0.0, |candidate| candidate.confidence),
                candidates,
            };
            serde_json::to_writer(&mut self.file, &reviewed)?;
            self.file.write_all(b"\n")?;
        }
        self.file.flush()
    }
}

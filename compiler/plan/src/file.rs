//! The plan file: JSON with the header first, one buffer, weight, collective or step per line.
//!
//! Equal plans give equal bytes: fields are written in the order of their types, numbers in
//! their shortest exact form. Reading looks at the format version before anything else, so a
//! plan of another version says so instead of failing somewhere in its body. A plan read by
//! [`Plan::from_json`] is not yet checked; [`Plan::load`] checks.

use crate::{Fingerprint, Header, Plan, PlanError, RankPlan, write_whole};
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

impl Plan {
    /// The plan as JSON, ending in a line break; equal plans give equal bytes.
    ///
    /// # Errors
    /// [`PlanError::Serialise`] when a part cannot be expressed in JSON.
    pub fn to_json(&self) -> Result<Vec<u8>, PlanError> {
        let mut out = Vec::with_capacity(1 << 16);
        write_plan(&mut out, self).map_err(PlanError::Serialise)?;
        Ok(out)
    }

    /// Reads a plan from JSON without checking it; nothing may follow the plan.
    ///
    /// # Errors
    /// One variant each for text that is not JSON, no plan, truncated, of another format
    /// version, or damaged in its body.
    pub fn from_json(json: &[u8]) -> Result<Self, PlanError> {
        probe_format(json)?;
        serde_json::from_slice(json).map_err(body_error)
    }

    /// Reads and checks a plan file.
    ///
    /// # Errors
    /// Those of [`Plan::from_json`] and [`Plan::check`], and [`PlanError::Read`].
    pub fn load(path: &Path) -> Result<Self, PlanError> {
        let plan = Self::from_json(&read(path)?)?;
        plan.check()?;
        Ok(plan)
    }

    /// Writes a plan file: beside its place first, then moved there, so that no half-written
    /// file is ever left under `path`.
    ///
    /// # Errors
    /// [`PlanError::Write`], and those of [`Plan::to_json`].
    pub fn save(&self, path: &Path) -> Result<(), PlanError> {
        let json = self.to_json()?;
        write_whole(path, &json).map_err(|source| PlanError::Write {
            path: path.to_owned(),
            source,
        })
    }
}

impl Header {
    /// Reads the header alone and leaves the body unread.
    ///
    /// # Errors
    /// As [`Plan::from_json`], as far as the header goes.
    pub fn from_json(json: &[u8]) -> Result<Self, PlanError> {
        probe_format(json)?;
        let (header, end) = first_value::<Self>(json);
        match (header, end) {
            (Some(header), _) => Ok(header),
            (None, Some(error)) => Err(body_error(error)),
            (None, None) => Err(no_header()),
        }
    }

    /// Reads the header of a plan file.
    ///
    /// # Errors
    /// Those of [`Header::from_json`], and [`PlanError::Read`].
    pub fn load(path: &Path) -> Result<Self, PlanError> {
        Self::from_json(&read(path)?)
    }

    /// Compares the plan's fingerprint with the one wanted, part by part.
    ///
    /// # Errors
    /// The variant of the first part that differs, in the order model, shape, element type,
    /// mesh, kernels.
    pub fn expect(&self, wanted: &Fingerprint) -> Result<(), PlanError> {
        let has = &self.fingerprint;
        if has.model != wanted.model {
            return Err(PlanError::Model {
                expected: wanted.model.clone(),
                found: has.model.clone(),
            });
        }
        if has.shape != wanted.shape {
            return Err(PlanError::Shape {
                expected: wanted.shape.clone(),
                found: has.shape.clone(),
            });
        }
        if has.dtype != wanted.dtype {
            return Err(PlanError::DType {
                expected: wanted.dtype,
                found: has.dtype,
            });
        }
        if has.mesh != wanted.mesh {
            return Err(PlanError::Mesh {
                expected: wanted.mesh.clone(),
                found: has.mesh.clone(),
            });
        }
        if has.kernels != wanted.kernels {
            return Err(PlanError::Kernels {
                expected: wanted.kernels.clone(),
                found: has.kernels.clone(),
            });
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, PlanError> {
    std::fs::read(path).map_err(|source| PlanError::Read {
        path: path.to_owned(),
        source,
    })
}

/// The only field of the header whose meaning never changes.
#[derive(Deserialize)]
struct Probe {
    format: u64,
}

fn probe_format(json: &[u8]) -> Result<(), PlanError> {
    let (probe, error) = first_value::<Probe>(json);
    let Some(probe) = probe else {
        return Err(error.map_or_else(no_header, probe_error));
    };
    if probe.format == u64::from(Header::FORMAT) {
        Ok(())
    } else {
        Err(PlanError::Format {
            expected: Header::FORMAT,
            found: probe.format,
        })
    }
}

fn no_header() -> PlanError {
    PlanError::NotAPlan {
        reason: "it has no `header`".to_owned(),
    }
}

/// Reads the value of `header` and stops there: the error that stopping early causes comes
/// back beside the value, and means nothing once there is a value.
fn first_value<'de, T: Deserialize<'de>>(
    json: &'de [u8],
) -> (Option<T>, Option<serde_json::Error>) {
    struct First<'a, T>(&'a mut Option<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for First<'_, T> {
        type Value = ();
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some(key) = map.next_key::<String>()? {
                if key == "header" {
                    *self.0 = Some(map.next_value()?);
                    return Ok(());
                }
                map.next_value::<IgnoredAny>()?;
            }
            Ok(())
        }
    }
    let mut value = None;
    let mut reader = serde_json::Deserializer::from_slice(json);
    let error = reader.deserialize_map(First(&mut value)).err();
    (value, error)
}

fn probe_error(error: serde_json::Error) -> PlanError {
    match error.classify() {
        serde_json::error::Category::Data => PlanError::NotAPlan {
            reason: reason(&error),
        },
        serde_json::error::Category::Eof if error.line() > 1 || error.column() > 0 => {
            PlanError::Truncated {
                line: error.line(),
                column: error.column(),
            }
        }
        serde_json::error::Category::Eof
        | serde_json::error::Category::Syntax
        | serde_json::error::Category::Io => PlanError::NotJson {
            line: error.line(),
            column: error.column(),
            reason: reason(&error),
        },
    }
}

fn body_error(error: serde_json::Error) -> PlanError {
    let (line, column) = (error.line(), error.column());
    match error.classify() {
        serde_json::error::Category::Eof => PlanError::Truncated { line, column },
        serde_json::error::Category::Data
        | serde_json::error::Category::Syntax
        | serde_json::error::Category::Io => PlanError::Body {
            line,
            column,
            reason: reason(&error),
        },
    }
}

/// The parser's words without the position that it appends to them.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    match text.strip_suffix(&position) {
        Some(reason) => reason.to_owned(),
        None => text,
    }
}

fn write_plan(out: &mut Vec<u8>, plan: &Plan) -> serde_json::Result<()> {
    let Plan {
        header,
        mesh,
        partitions,
        inputs,
        outputs,
        carries,
        weights,
        collectives,
        origins,
        ranks,
    } = plan;
    field(out, "{\n", "header", header)?;
    field(out, ",\n", "mesh", mesh)?;
    lines(out, ",\n", "partitions", partitions)?;
    lines(out, ",\n", "inputs", inputs)?;
    lines(out, ",\n", "outputs", outputs)?;
    lines(out, ",\n", "carries", carries)?;
    lines(out, ",\n", "weights", weights)?;
    lines(out, ",\n", "collectives", collectives)?;
    lines(out, ",\n", "origins", origins)?;
    out.extend_from_slice(b",\n\"ranks\":[");
    for (i, rank) in ranks.iter().enumerate() {
        out.extend_from_slice(if i == 0 { b"\n" } else { b",\n" });
        write_rank(out, rank)?;
    }
    out.extend_from_slice(b"]\n}\n");
    Ok(())
}

fn write_rank(out: &mut Vec<u8>, rank: &RankPlan) -> serde_json::Result<()> {
    let RankPlan {
        arena_bytes,
        state_bytes,
        buffers,
        inputs,
        outputs,
        patterns,
        init,
        steps,
    } = rank;
    field(out, "{", "arena_bytes", arena_bytes)?;
    field(out, ",", "state_bytes", state_bytes)?;
    lines(out, ",", "buffers", buffers)?;
    lines(out, ",\n", "inputs", inputs)?;
    lines(out, ",\n", "outputs", outputs)?;
    lines(out, ",\n", "patterns", patterns)?;
    lines(out, ",\n", "init", init)?;
    lines(out, ",\n", "steps", steps)?;
    out.push(b'}');
    Ok(())
}

fn field<T: Serialize>(
    out: &mut Vec<u8>,
    before: &str,
    name: &str,
    value: &T,
) -> serde_json::Result<()> {
    open(out, before, name);
    serde_json::to_writer(out, value)
}

fn lines<T: Serialize>(
    out: &mut Vec<u8>,
    before: &str,
    name: &str,
    values: &[T],
) -> serde_json::Result<()> {
    open(out, before, name);
    out.push(b'[');
    for (i, value) in values.iter().enumerate() {
        out.extend_from_slice(if i == 0 { b"\n" } else { b",\n" });
        serde_json::to_writer(&mut *out, value)?;
    }
    out.push(b']');
    Ok(())
}

fn open(out: &mut Vec<u8>, before: &str, name: &str) {
    out.extend_from_slice(before.as_bytes());
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

//! One transformer forward on the caller's tensors.

use crate::request::{Activations, Granularity, Part, Request};
use crate::{Degrees, Error, Extents, Model, Precision, tensors};
use std::collections::BTreeMap;
use std::path::Path;
use terrace_models::folder::Component;
use terrace_models::transformer::TransformerConfig;
use terrace_runtime::HostTensor;

const NAMES: [(&str, &str); 4] = [
    ("hidden_states", "[b,f,c,h,w]"),
    ("encoder_hidden_states", "[b,txt,d]"),
    ("timestep", "[b]"),
    ("ofs", "[b]"),
];

/// How a forward is cut and computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Ranks and degrees.
    pub degrees: Degrees,
    /// Where slices may be cut.
    pub granularity: Granularity,
    /// Element type of matrix products.
    pub precision: Precision,
}

/// Inputs of a forward, all f32.
#[derive(Clone, Debug, PartialEq)]
pub struct ForwardInputs {
    /// `[b, f, c, h, w]`.
    pub hidden_states: HostTensor,
    /// `[b, txt, d]`.
    pub encoder_hidden_states: HostTensor,
    /// `[b]`.
    pub timestep: HostTensor,
    /// `[b]`, for models that have it.
    pub ofs: Option<HostTensor>,
}

impl ForwardInputs {
    /// Reads the inputs from a safetensors file that holds them under their names.
    ///
    /// # Errors
    /// The file cannot be read, or lacks a tensor.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let mut tensors = tensors::read(path)?;
        let [hidden, text, timestep, ofs] = NAMES;
        let mut take = |(name, shape)| take(path, &mut tensors, name, shape);
        Ok(Self {
            hidden_states: take(hidden)?,
            encoder_hidden_states: take(text)?,
            timestep: take(timestep)?,
            ofs: take(ofs).ok(),
        })
    }

    /// Inputs of normal noise for latents `[b, f, h, w]`.
    ///
    /// # Errors
    /// There is no memory for them.
    pub fn noise(
        config: &TransformerConfig,
        [batch, frames, height, width]: [usize; 4],
        text: usize,
    ) -> Result<Self, Error> {
        let hidden = vec![batch, frames, config.in_channels, height, width];
        let ofs = config.ofs_embed_dim.map(|_| tensors::noise(vec![batch]));
        Ok(Self {
            hidden_states: tensors::noise(hidden)?,
            encoder_hidden_states: tensors::noise(vec![batch, text, config.text_embed_dim])?,
            timestep: tensors::noise(vec![batch])?,
            ofs: ofs.transpose()?,
        })
    }

    /// What is compiled for these inputs.
    ///
    /// # Errors
    /// A shape does not fit the model, or a degree is not served.
    pub fn request(&self, model: &Model, cut: &Cut) -> Result<Request, Error> {
        let config = model.transformer()?;
        let &[batch, frames, _, height, width] = self.hidden_states.shape() else {
            return Err(self.misfit(&config));
        };
        let text = self
            .encoder_hidden_states
            .shape()
            .get(1)
            .copied()
            .unwrap_or(0);
        self.check(&config, batch, text)?;
        let patch_frames = config.patch_size_t.unwrap_or(1);
        let extents = Extents {
            batch,
            heads: config.num_attention_heads,
            text,
            grid: [
                frames / patch_frames,
                height / config.patch_size,
                width / config.patch_size,
            ],
            granularity: cut.granularity.into(),
        };
        Ok(Request {
            part: Part::Forward {
                batch,
                latents: [frames, height, width],
                text,
            },
            config: model.config(Component::Transformer)?,
            mesh: cut.degrees.mesh(&extents)?,
            granularity: cut.granularity,
            precision: cut.precision,
            activations: Activations::default(),
        })
    }

    /// The inputs by port.
    pub fn ports(&self) -> Vec<(&'static str, &HostTensor)> {
        let all = [
            Some(&self.hidden_states),
            Some(&self.encoder_hidden_states),
            Some(&self.timestep),
            self.ofs.as_ref(),
        ];
        let named = NAMES.iter().zip(all);
        named
            .filter_map(|((name, _), tensor)| Some((*name, tensor?)))
            .collect()
    }

    fn check(&self, config: &TransformerConfig, batch: usize, text: usize) -> Result<(), Error> {
        let hidden = self.hidden_states.shape();
        if hidden[2] != config.in_channels || batch == 0 {
            return Err(self.misfit(config));
        }
        let embeds = [batch, text, config.text_embed_dim];
        expect(
            "encoder_hidden_states",
            &self.encoder_hidden_states,
            &embeds,
        )?;
        expect("timestep", &self.timestep, &[batch])?;
        match (&self.ofs, config.ofs_embed_dim) {
            (Some(ofs), Some(_)) => expect("ofs", ofs, &[batch]),
            (None, None) => Ok(()),
            (None, Some(_)) => Err(Error::Ofs {
                expected: "an input",
                found: "none",
            }),
            (Some(_), None) => Err(Error::Ofs {
                expected: "no input",
                found: "one",
            }),
        }
    }

    fn misfit(&self, config: &TransformerConfig) -> Error {
        Error::TensorShape {
            tensor: "hidden_states",
            expected: format!("[b,f,{},h,w] with b of at least 1", config.in_channels),
            found: self.hidden_states.shape().to_vec(),
        }
    }
}

fn expect(tensor: &'static str, found: &HostTensor, shape: &[usize]) -> Result<(), Error> {
    if found.shape() == shape {
        return Ok(());
    }
    Err(Error::TensorShape {
        tensor,
        expected: format!("{shape:?}"),
        found: found.shape().to_vec(),
    })
}

/// Takes a tensor as f32.
fn take(
    path: &Path,
    tensors: &mut BTreeMap<String, HostTensor>,
    name: &'static str,
    shape: &'static str,
) -> Result<HostTensor, Error> {
    let found = || tensors.keys().cloned().collect::<Vec<_>>().join(", ");
    let Some(tensor) = tensors.get(name) else {
        return Err(Error::NoTensor {
            file: path.to_owned(),
            tensor: name,
            shape,
            found: found(),
        });
    };
    tensors::as_f32(tensor.clone())
}

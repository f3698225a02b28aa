//! The ranks that a projection is one of: their communicator, its backend's side of transfers, and
//! what each of them holds, which they told each other when they joined.

use super::agreement::{self, Occasion, Statement, agree};
use crate::backend::{Backend, Info, Numerics, Wire};
use crate::comm::{Comm, Kind};
use crate::error::{Error, ensure};
use crate::shard::{Range, Ranks, Shard};
use crate::spec::{Part, Spec};
use std::sync::Arc;

/// The group that a projection joined.
pub(super) struct Group {
    pub(super) comm: Arc<Comm>,
    pub(super) wire: Arc<dyn Wire>,
    pub(super) ranks: Ranks,
}

const NONE: Range = Range { begin: 0, count: 0 };

/// What a rank says of itself when it joins.
pub(super) struct Member<'a> {
    pub(super) backend: &'a dyn Backend,
    pub(super) spec: &'a Spec,
    pub(super) shard: &'a Shard,
    pub(super) numerics: Numerics,
    pub(super) shares_replicas: bool,
    pub(super) weights_version: u64,
}

impl Group {
    /// Joins the ranks of a communicator, all of which do so now.
    pub(super) fn join(comm: Arc<Comm>, member: &Member<'_>) -> Result<Self, Error> {
        let mut group = Self::alone(comm, member.backend, *member.shard)?;
        let refusal = group.ensure_able(member).err();
        let statement = member.statement(&group.comm, refusal.as_ref());
        let said = agree(&group, &mut group.comm.turn()?, &statement);
        let said = refusal.map_or(said, Err)?;
        let shard = |numbers: &_| {
            let range = |at| Range {
                begin: agreement::word(numbers, at),
                count: agreement::word(numbers, at + 1),
            };
            let (query_heads, key_value_heads) = (range(0), range(2));
            Shard { query_heads, key_value_heads, layers: member.shard.layers }
        };
        group.ranks = Ranks::new(said.iter().map(shard).collect());
        Ok(group)
    }

    /// Tells the ranks of a communicator, all of which make a projection now, that this one cannot.
    pub(super) fn refuse(comm: Arc<Comm>, backend: &dyn Backend, error: &Error) {
        let nothing = Shard { query_heads: NONE, key_value_heads: NONE, layers: NONE };
        let told = Self::alone(comm, backend, nothing).and_then(|group| {
            let statement = Statement::new(Occasion::Join, Some(error));
            agree(&group, &mut group.comm.turn()?, &statement).map(drop)
        });
        // This rank answers what it refused; the others hear of it, or give up at their deadline.
        drop(told);
    }

    /// Before it is known what the others hold.
    fn alone(comm: Arc<Comm>, backend: &dyn Backend, shard: Shard) -> Result<Self, Error> {
        ensure_carried(&comm, backend.info())?;
        let wire = backend.wire(agreement::board_bytes(comm.seat().rank_count))?;
        Ok(Self { comm, wire, ranks: Ranks::new(vec![shard]) })
    }

    fn ensure_able(&self, member: &Member<'_>) -> Result<(), Error> {
        ensure!(
            !member.shares_replicas || self.comm.can_exchange(),
            NotSupported,
            "XQKV_PROJECTION_FLAG_SHARE_REPLICAS takes exchange, which the communicator's \
             collectives do not have; set xqkv_collectives.exchange"
        );
        Ok(())
    }

    /// Which of them this rank is.
    pub(super) fn rank(&self) -> usize {
        self.comm.seat().rank
    }

    /// Whether each call is held against the others' before it runs.
    pub(super) fn checks_calls(&self) -> bool {
        !self.wire.is_streamed() || self.comm.options().checks_calls
    }
}

/// Refuses what cannot carry the memory of a backend.
fn ensure_carried(comm: &Comm, info: Info) -> Result<(), Error> {
    let (kind, is_host) = (comm.kind(), matches!(info, Info::Host { .. }));
    ensure!(
        is_host || kind != Kind::Threads,
        NotSupported,
        "a communicator of threads carries host memory; threads that drive CUDA devices use \
         xqkv_comm_create_nccl"
    );
    ensure!(
        !is_host || kind != Kind::Nccl,
        NotSupported,
        "NCCL carries the memory of CUDA devices; ranks on the host use xqkv_comm_create_threads \
         or xqkv_comm_create_collectives"
    );
    match (comm.device(), info) {
        (Some(theirs), Info::Cuda { device, .. }) => ensure!(
            theirs == device,
            InvalidArgument,
            "the communicator is on CUDA device {theirs}, but the projection on device {device}; \
             make one with the projection's context"
        ),
        (_, Info::Cuda { .. } | Info::Host { .. }) => {}
    }
    Ok(())
}

impl Member<'_> {
    fn statement(&self, comm: &Comm, refusal: Option<&Error>) -> Statement {
        let Shard { query_heads, key_value_heads, layers } = *self.shard;
        let own = Statement::new(Occasion::Join, refusal)
            .own("query_head_begin", query_heads.begin)
            .own("query_head_count", query_heads.count)
            .own("key_value_head_begin", key_value_heads.begin)
            .own("key_value_head_count", key_value_heads.count);
        let common = own
            .common("layer_begin", layers.begin)
            .common("the shard's layer_count", layers.count)
            .common("XQKV_PROJECTION_FLAG_SHARE_REPLICAS", self.shares_replicas.into())
            .common("XQKV_COMM_FLAG_CHECK_CALLS", comm.options().checks_calls.into())
            .common("the weights' version", self.weights_version as i64);
        self.say_numerics(say_spec(common, self.spec))
    }

    /// What bits depend on beyond the spec.
    fn say_numerics(&self, statement: Statement) -> Statement {
        let (backend, class) = numeric_class(self.backend.info());
        let numerics = self.numerics;
        statement
            .common("XQKV_PROJECTION_FLAG_TENSOR_FLOAT", numerics.tensor_float.into())
            .common("XQKV_PROJECTION_FLAG_BATCH_INVARIANT", numerics.batch_invariant.into())
            .common("the backend", backend)
            .common("the instruction set's class", class)
            .common("the library's version", library_version())
    }
}

fn say_spec(statement: Statement, spec: &Spec) -> Statement {
    let bits = |value: f32| i64::from(value.to_bits());
    let norm = |value: &dyn Fn(&crate::spec::Norm) -> i64| spec.norm.as_ref().map_or(0, value);
    statement
        .common("layer_count", spec.layer_count)
        .common("decoder_width", spec.decoder_width)
        .common("encoder_width", spec.encoder_width)
        .common("query_heads", spec.query_heads)
        .common("key_value_heads", spec.key_value_heads)
        .common("head_width", spec.head_width)
        .common("value_head_width", spec.value_head_width)
        .common("weight_dtype", spec.weight_dtype as i64)
        .common("query_bias", spec.bias[Part::Query].into())
        .common("key_bias", spec.bias[Part::Key].into())
        .common("value_bias", spec.bias[Part::Value].into())
        .common("query_scale (its bits)", bits(spec.scale[Part::Query]))
        .common("key_scale (its bits)", bits(spec.scale[Part::Key]))
        .common("value_scale (its bits)", bits(spec.scale[Part::Value]))
        .common("norm", spec.norm.is_some().into())
        .common("norm_epsilon (its bits)", norm(&|norm| bits(norm.epsilon)))
        .common("norm_rounds_first", norm(&|norm| norm.rounds_first.into()))
}

/// A number for the backend, and one for what its bits depend on: how the host multiplies and adds,
/// the generation of a CUDA device.
fn numeric_class(info: Info) -> (i64, i64) {
    match info {
        Info::Host { instruction_set, .. } => (1, instruction_set.arithmetic() as i64),
        Info::Cuda { compute_capability, .. } => (2, compute_capability.into()),
    }
}

/// Of this build, in one number.
fn library_version() -> i64 {
    let part = |text: &str| text.parse::<i64>().unwrap_or(0);
    let major = part(env!("CARGO_PKG_VERSION_MAJOR"));
    let minor = part(env!("CARGO_PKG_VERSION_MINOR"));
    (major * 1000 + minor) * 1000 + part(env!("CARGO_PKG_VERSION_PATCH"))
}

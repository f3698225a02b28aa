//! The layer: Q when there are decoder rows, K and V when there are encoder rows. Holds this
//! rank's weights as versions, of which each forward runs on exactly one.

mod agreement;
mod brief;
mod collective;
mod current;
mod group;
mod plan;
mod ranks;
mod run;
mod staging;
mod together;
mod version;

pub use brief::BriefCall;
pub use collective::{Collective, Phase, Sequence};
pub use plan::Plan;

use crate::backend::{
    Backend, Columns, Form, Job, Lane, Numerics, Output, PlanOptions, Side, Weights,
};
use crate::comm::{Comm, Moved};
use crate::error::{Error, ensure};
use crate::shard::Shard;
use crate::spec::{Part, Spec};
use crate::stats::Counts;
use crate::view::{Footprint, Indices, Rows, View, ensure_disjoint};
use crate::weights::Update;
use brief::Outline;
use current::Current;
use group::{Group, Member};
use plan::CallShape;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use version::{Version, form, matrix_of};

/// One call, its inputs and views checked one by one. A side is None when its input is absent or
/// this rank has no heads of it.
pub struct Call<'a> {
    /// The first layer.
    pub layer: i64,
    /// Layers that share the encoder's rows; 1 if there are decoder rows.
    pub layer_count: i64,
    /// Decoder rows and where their result goes.
    pub decoder: Option<DecoderSide<'a>>,
    /// Encoder rows and where their results go.
    pub encoder: Option<EncoderSide<'a>>,
    /// Where a device's work is put.
    pub lane: Lane,
    /// What it asks of other ranks, if it does.
    pub collective: Option<Collective<'a>>,
}

/// What Q is made from and written to.
pub struct DecoderSide<'a> {
    /// The decoder's hidden states.
    pub rows: Rows,
    /// Where Q goes.
    pub query: View<'a>,
}

/// What K and V are made from and written to.
pub struct EncoderSide<'a> {
    /// The encoder's hidden states.
    pub rows: Rows,
    /// Where K goes.
    pub key: View<'a>,
    /// Where V goes.
    pub value: View<'a>,
}

/// What one forward did.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// Work, counted where it was done.
    pub counts: Counts,
    /// Which commit's weights it ran on.
    pub weights_version: u64,
    /// Plans that were made for it.
    pub plans_made: u64,
    /// Transfers between ranks.
    pub moved: Moved,
}

impl Done {
    /// What a rank without heads of the given sides does.
    fn nothing(weights_version: u64) -> Self {
        Done { counts: Counts::default(), weights_version, plans_made: 0, moved: Moved::default() }
    }
}

/// Whether a projection is one of several.
#[derive(Clone, Default)]
pub struct Membership {
    /// Its way to the others.
    pub comm: Option<Arc<Comm>>,
    /// Whether ranks share the work of heads that several of them hold.
    pub shares_replicas: bool,
}

/// This rank's shard of Wq, Wk and Wv of all its layers, on one backend.
pub struct Projection {
    backend: Arc<dyn Backend>,
    spec: Spec,
    shard: Shard,
    form: Form,
    /// The ranks that it is one of.
    group: Mutex<Option<Arc<Group>>>,
    shares_replicas: bool,
    current: Current<Version>,
    /// Plans that were made for calls without one, the oldest first.
    plans: Mutex<Vec<Arc<Plan>>>,
    /// Tells this projection's plans from others'.
    number: u64,
}

/// Plans that are kept for calls without one.
const MOST_PLANS: usize = 64;

impl Projection {
    /// A projection without weights, for a checked spec and its shard. With a communicator all
    /// ranks make theirs at the same time.
    pub fn new(
        backend: Arc<dyn Backend>,
        spec: Spec,
        shard: Shard,
        numerics: Numerics,
        membership: Membership,
    ) -> Result<Self, Error> {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let Membership { comm, shares_replicas } = membership;
        let weights_version = 0;
        let (member_of, device) = (&spec, &*backend);
        let member = Member {
            backend: device,
            spec: member_of,
            shard: &shard,
            numerics,
            shares_replicas,
            weights_version,
        };
        let group = comm.map(|comm| Group::join(comm, &member)).transpose()?.map(Arc::new);
        let has_replicas =
            |part| group.as_ref().is_some_and(|group| group.ranks.has_replicas(part));
        let form = form(&spec, &shard, numerics, has_replicas);
        let (current, plans) = (Current::new(Version::default()), Mutex::default());
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let group = Mutex::new(group);
        Ok(Self { backend, spec, shard, form, group, shares_replicas, current, plans, number })
    }

    /// Tells the other ranks, which are making theirs, that this one cannot make its own.
    pub fn refuse(comm: Arc<Comm>, backend: &dyn Backend, error: &Error) {
        Group::refuse(comm, backend, error);
    }

    /// The uncut layers.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// What this rank holds of them.
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// The device that it runs on.
    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// The number of the last commit.
    pub fn weights_version(&self) -> u64 {
        self.current.read().number
    }

    /// Projects what the call gives rows for, by the plan if there is one.
    ///
    /// # Safety
    /// The call's rows can be read and its views written, and nobody else writes the rows or
    /// touches the views meanwhile.
    pub unsafe fn forward(&self, call: &Call<'_>, plan: Option<&Plan>) -> Result<Done, Error> {
        if let Some(collective) = &call.collective {
            // SAFETY: passed on.
            return unsafe { self.forward_together(call, collective, plan) };
        }
        call.ensure_disjoint()?;
        let version = self.current.read();
        if call.is_empty() {
            return Ok(Done::nothing(version.number));
        }
        let weights = version.ensure_ready(&self.spec, &self.shard, call)?;
        let job = self.job(call, weights);
        job.ensure_addable()?;
        // SAFETY: passed on; the call was checked, and all it needs is loaded.
        let run = |plan| unsafe { self.backend.run(plan, &job) };
        let (counts, plans_made) = if let Some(plan) = plan {
            self.ensure_suits(plan, call, &job)?;
            (run(&plan.device)?, 0)
        } else if let Some(plan) = self.backend.standing_plan() {
            (run(plan)?, 0)
        } else {
            let (plan, plans_made) = self.find_or_make_plan(call, &job)?;
            (run(&plan.device)?, plans_made)
        };
        Ok(Done { counts, weights_version: version.number, plans_made, moved: Moved::default() })
    }

    /// Prepares calls of this shape, with at most as many rows of each side.
    pub fn plan(&self, call: &Call<'_>, options: &PlanOptions) -> Result<Plan, Error> {
        if let Some(collective) = &call.collective {
            return self.plan_together(call, collective, options);
        }
        call.ensure_disjoint()?;
        let version = self.current.read();
        let weights = version.ensure_ready(&self.spec, &self.shard, call)?;
        let job = self.job(call, weights);
        job.ensure_addable()?;
        self.make_plan(call, &job, options)
    }

    /// An update that changes nothing yet.
    pub fn begin(&self) -> Update {
        Update::new(self.spec.clone(), self.shard)
    }

    /// Bytes of the backend's memory that committing the update would take.
    pub fn commit_bytes(&self, update: &Update) -> Result<usize, Error> {
        let version = self.current.read();
        let stock = version.stock(&self.form, update, self.shard.layers.begin);
        self.backend.weight_bytes(&stock, version.weights.as_ref())
    }

    /// Makes a new version of what the update changes and what it leaves, and gives its number.
    /// Forwards do not wait for it.
    pub fn commit(&self, update: &Update) -> Result<u64, Error> {
        let writer = self.current.write();
        let version = writer.read();
        let stock = version.stock(&self.form, update, self.shard.layers.begin);
        let weights = self.backend.load(&stock, version.weights.as_ref());
        let weights = self.agree_on_commit(version.number + 1, weights)?;
        let next = version.next(&stock, weights, &self.spec);
        let number = next.number;
        // Readers that are running keep the old version; this reference must not be the last.
        drop(version);
        writer.replace(next);
        Ok(number)
    }

    fn job<'a>(&'a self, call: &'a Call<'a>, weights: &'a Weights) -> Job<'a> {
        let output = |name, part, view| {
            let matrix = matrix_of(part);
            let columns = Columns { begin: 0, count: self.form.matrices[matrix].outputs };
            Some(Output { name, matrix, columns, view })
        };
        let decoder = call.decoder.as_ref().map(|DecoderSide { rows, query }| Side {
            name: "decoder",
            rows,
            outputs: [output("query", Part::Query, query), None],
        });
        let encoder = call.encoder.as_ref().map(|EncoderSide { rows, key, value }| Side {
            name: "encoder",
            rows,
            outputs: [output("key", Part::Key, key), output("value", Part::Value, value)],
        });
        Job {
            form: &self.form,
            weights,
            layer: (call.layer - self.shard.layers.begin) as usize,
            layer_count: call.layer_count as usize,
            sides: [decoder, encoder],
            lane: &call.lane,
        }
    }

    fn ensure_suits(&self, plan: &Plan, call: &Call<'_>, job: &Job<'_>) -> Result<(), Error> {
        self.ensure_own(plan)?;
        plan.shape.ensure_fits(call)?;
        ensure!(
            plan.products.is_none(),
            PlanMismatch,
            "the plan was made for a call with transfers, and this one has none; make a plan for it"
        );
        self.backend.ensure_suits(&plan.device, job)
    }

    fn ensure_own(&self, plan: &Plan) -> Result<(), Error> {
        ensure!(
            plan.owner == self.number,
            PlanMismatch,
            "the plan was made by another projection; make one with xqkv_plan_create for this one"
        );
        Ok(())
    }

    /// Keeps a plan for later calls, in place of the oldest if there are many.
    fn keep(&self, plans: &mut Vec<Arc<Plan>>, plan: Arc<Plan>) {
        if plans.len() == MOST_PLANS {
            plans.remove(0);
        }
        plans.push(plan);
    }

    fn make_plan(
        &self,
        call: &Call<'_>,
        job: &Job<'_>,
        options: &PlanOptions,
    ) -> Result<Plan, Error> {
        let shape = CallShape::of(call, options.alignment);
        let device = self.backend.plan(job, options)?;
        let outline = Outline::of(call, options.alignment);
        let plan = Plan { device, shape, outline, owner: self.number, products: None };
        self.ensure_suits(&plan, call, job)?;
        Ok(plan)
    }

    /// The plan of an earlier call like this one, or a new one; and how many were made.
    fn find_or_make_plan(&self, call: &Call<'_>, job: &Job<'_>) -> Result<(Arc<Plan>, u64), Error> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        // A plan for more rows or sides asks for more workspace than this call was told to lend.
        let is_lent = |plan: &Plan| plan.minimum_bytes() <= job.lane.workspace_bytes;
        let suits = |plan: &&Arc<Plan>| is_lent(plan) && self.ensure_suits(plan, call, job).is_ok();
        let found = plans.iter().find(suits).cloned();
        self.backend.ensure_runnable(job, found.is_some())?;
        if let Some(plan) = found {
            return Ok((plan, 0));
        }
        let alignment = call.common_alignment();
        let options = PlanOptions { workspace_limit: None, alignment, is_timed: false };
        let plan = Arc::new(self.make_plan(call, job, &options)?);
        if !is_lent(&plan) {
            // Refused when it runs; kept, it would only take the place of others.
            return Ok((plan, 1));
        }
        self.keep(&mut plans, plan.clone());
        Ok((plan, 1))
    }

    fn has_layers(&self, layer: i64, layer_count: i64) -> bool {
        let (layers, last) = (self.shard.layers, layer.checked_add(layer_count));
        layer_count > 0 && layers.begin <= layer && last.is_some_and(|last| last <= layers.end())
    }

    /// Refuses layers that this rank does not hold.
    pub fn ensure_layers(&self, layer: i64, layer_count: i64) -> Result<(), Error> {
        let layers = self.shard.layers;
        ensure!(
            self.has_layers(layer, layer_count),
            LayerOutOfRange,
            "layer {layer} and layer_count {layer_count} leave this projection's layers {} to {}",
            layers.begin,
            layers.end() - 1
        );
        Ok(())
    }
}

type Named = (&'static str, Footprint);

impl Call<'_> {
    /// Refuses outputs that share memory with each other or with what is read.
    fn ensure_disjoint(&self) -> Result<(), Error> {
        let are_apart = self.are_ranges_apart();
        debug_assert!(!are_apart || self.ensure_each_disjoint().is_ok());
        if are_apart { Ok(()) } else { self.ensure_each_disjoint() }
    }

    fn ensure_each_disjoint(&self) -> Result<(), Error> {
        for (number, written) in self.written().enumerate() {
            for other in self.read().chain(self.written().skip(number + 1)) {
                ensure_disjoint((written.0, &written.1), (other.0, &other.1))?;
            }
        }
        Ok(())
    }

    /// Whether already the ranges of addresses have nothing in common, as in most calls: then the
    /// memory has not, either. What is written is always held against rows that are read.
    #[inline(always)]
    fn are_ranges_apart(&self) -> bool {
        const NOWHERE: Range<usize> = usize::MAX..usize::MAX;
        let listed = |list: Option<&Indices>| list.map_or(NOWHERE, Indices::range);
        let of_rows = |rows: &Rows| [rows.range(), listed(rows.list())];
        let of_view = |view: &View<'_>| (view.range(), listed(view.slots()));
        let (mut read, mut written) = ([NOWHERE; 7], [NOWHERE; 3]);
        if let Some(DecoderSide { rows, query }) = &self.decoder {
            [read[0], read[1]] = of_rows(rows);
            (written[0], read[2]) = of_view(query);
        }
        if let Some(EncoderSide { rows, key, value }) = &self.encoder {
            [read[3], read[4]] = of_rows(rows);
            (written[1], read[5]) = of_view(key);
            (written[2], read[6]) = of_view(value);
        }
        let are_apart =
            |one: &Range<usize>, two: &Range<usize>| one.end <= two.start || two.end <= one.start;
        written.iter().enumerate().all(|(number, place)| {
            let others = read.iter().chain(&written[number + 1..]);
            *place == NOWHERE || others.into_iter().all(|other| are_apart(place, other))
        })
    }

    /// The inputs and lists.
    fn read(&self) -> impl Iterator<Item = Named> {
        let rows = |(name, list, rows): (_, _, &Rows)| {
            let memory = (name, rows.footprint());
            [Some(memory), rows.list().map(|indices| (list, indices.footprint()))]
        };
        let slots = self
            .views()
            .map(|(_, name, view)| view.slots().map(|indices| (name, indices.footprint())));
        self.rows().flat_map(rows).chain(slots).flatten()
    }

    /// The outputs, each layer on its own if it has its own address.
    fn written(&self) -> impl Iterator<Item = Named> {
        self.views()
            .flat_map(|(name, _, view)| view.footprints().map(move |footprint| (name, footprint)))
    }

    /// The sides' rows, with their names and those of their lists.
    fn rows(&self) -> impl Iterator<Item = (&'static str, &'static str, &Rows)> {
        let decoder = self.decoder.as_ref().map(|side| ("decoder", "decoder.row_list", &side.rows));
        let encoder = self.encoder.as_ref().map(|side| ("encoder", "encoder.row_list", &side.rows));
        decoder.into_iter().chain(encoder)
    }

    /// The views, with their names and those of their slots.
    fn views(&self) -> impl Iterator<Item = (&'static str, &'static str, &View<'_>)> {
        let query = self.decoder.as_ref().map(|side| ("query", "query.slots", &side.query));
        let key = self.encoder.as_ref().map(|side| ("key", "key.slots", &side.key));
        let value = self.encoder.as_ref().map(|side| ("value", "value.slots", &side.value));
        [query, key, value].into_iter().flatten()
    }

    fn addresses(&self) -> impl Iterator<Item = (&'static str, usize)> {
        let rows = self.rows().map(|(name, _, rows)| (name, rows.address()));
        let named = self.written().map(|(name, footprint)| (name, footprint.address()));
        rows.chain(named)
    }

    /// All addresses, one over the other: a multiple of whatever all are a multiple of.
    fn address_bits(&self) -> usize {
        let decoder = self.decoder.as_ref();
        let decoder = decoder.map_or(0, |side| side.rows.address() | side.query.address_bits());
        let encoder = self.encoder.as_ref().map_or(0, |side| {
            side.rows.address() | side.key.address_bits() | side.value.address_bits()
        });
        decoder | encoder
    }

    /// 16, which is all that vector loads ask for, or less if an address is a multiple of less.
    fn common_alignment(&self) -> usize {
        1 << self.address_bits().trailing_zeros().min(4)
    }

    /// Whether this rank has no heads of the sides that were given.
    fn is_empty(&self) -> bool {
        self.decoder.is_none() && self.encoder.is_none()
    }

    /// The parts that are projected, and where they go.
    fn outputs(&self) -> impl Iterator<Item = (Part, &View<'_>)> {
        let query = self.decoder.as_ref().map(|side| (Part::Query, &side.query));
        let key = self.encoder.as_ref().map(|side| (Part::Key, &side.key));
        let value = self.encoder.as_ref().map(|side| (Part::Value, &side.value));
        [query, key, value].into_iter().flatten()
    }

    fn parts(&self) -> impl Iterator<Item = Part> {
        let query = self.decoder.iter().map(|_| Part::Query);
        query.chain(self.encoder.iter().flat_map(|_| [Part::Key, Part::Value]))
    }
}

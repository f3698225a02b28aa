//! A projection as one of several: joining their group, committing with them, and calls with
//! transfers, which all ranks make or none.

use super::agreement::{Occasion, Statement, agree};
use super::collective::{Collective, Phase, Sequence};
use super::group::{Group, Member};
use super::plan::CallShape;
use super::together::Together;
use super::version::Version;
use super::{Call, Done, Plan, Projection};
use crate::backend::{self, PlanOptions, Weights};
use crate::comm::{Comm, Turn};
use crate::error::{Error, ensure};
use crate::shard::Reach;
use crate::spec::Part;
use crate::view::ensure_disjoint;
use std::sync::{Arc, PoisonError};

impl Projection {
    /// Takes part in another communicator from here on, or in none.
    pub fn set_comm(&self, comm: Option<Arc<Comm>>) -> Result<(), Error> {
        let before = self.find_group();
        let group = comm.map(|comm| Group::join(comm, &self.member())).transpose()?;
        if let Some(group) = &group {
            self.ensure_same_ranks(before.as_deref(), group)?;
        }
        *self.group.lock().unwrap_or_else(PoisonError::into_inner) = group.map(Arc::new);
        Ok(())
    }

    fn member(&self) -> Member<'_> {
        Member {
            backend: &*self.backend,
            spec: &self.spec,
            shard: &self.shard,
            numerics: self.form.numerics,
            shares_replicas: self.shares_replicas,
            weights_version: self.weights_version(),
        }
    }

    /// Weights lie as the first group asked for: some heads apart from others.
    fn ensure_same_ranks(&self, before: Option<&Group>, group: &Group) -> Result<(), Error> {
        let is_cut = |part| self.form.matrices[super::version::matrix_of(part)].cut_width > 0;
        let lies_right = |part| is_cut(part) || !group.ranks.has_replicas(part);
        ensure!(
            Part::ALL.into_iter().all(lies_right)
                && before.is_none_or(|before| before.ranks == group.ranks),
            InvalidArgument,
            "the ranks of the communicator hold other heads than those that the projection was \
             made with; make the projection anew, with this communicator"
        );
        Ok(())
    }

    fn find_group(&self) -> Option<Arc<Group>> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn group(&self) -> Result<Arc<Group>, Error> {
        let group = self.find_group();
        ensure!(
            group.is_some(),
            InvalidArgument,
            "the call has transfers, and the projection has no communicator; set \
             xqkv_projection_options.comm, or use xqkv_projection_set_comm"
        );
        Ok(group.expect("just checked"))
    }

    /// How many ranks there are, and which this is.
    pub fn seat(&self) -> Result<crate::comm::Seat, Error> {
        Ok(self.group()?.comm.seat())
    }

    /// Whether a call needs other ranks at all. Refuses to gather heads that no rank has, and
    /// halves of what cannot be halved.
    pub fn has_transfers(&self, collective: &Collective<'_>) -> Result<bool, Error> {
        let group = self.group()?;
        let moves = |part| self.reach(&group, collective, part) != Reach::Holders;
        for part in Part::ALL {
            if self.reach(&group, collective, part).is_all() {
                group.ranks.ensure_covered(&self.spec, part)?;
            }
        }
        let has_encoder = collective.encoder_rows > 0;
        let moves_results = moves(Part::Query) || moves(Part::Key);
        collective.ensure_halves(group.wire.is_streamed(), moves_results)?;
        Ok(collective.phase != Phase::Whole
            || (collective.decoder_rows > 0 && moves(Part::Query))
            || (has_encoder && (moves(Part::Key) || collective.sequence.is_some())))
    }

    /// Whether results of K and V have transfers where nothing is asked to be gathered.
    pub fn shares_replicas(&self) -> bool {
        self.shares_replicas
    }

    /// How far the results of a part go.
    pub(super) fn reach(&self, group: &Group, collective: &Collective<'_>, part: Part) -> Reach {
        let is_query = part == Part::Query;
        let shares = !is_query && self.shares_replicas && group.ranks.has_replicas(part);
        let gathers =
            if is_query { collective.gathers_query } else { collective.gathers_key_value };
        match (gathers && group.ranks.count() > 1, shares) {
            (true, true) => Reach::AllShared,
            (true, false) => Reach::All,
            (false, true) => Reach::Sharers,
            (false, false) => Reach::Holders,
        }
    }

    /// Lets a commit be one on all ranks or on none.
    pub(super) fn agree_on_commit(
        &self,
        number: u64,
        weights: Result<Weights, Error>,
    ) -> Result<Weights, Error> {
        let Some(group) = self.find_group() else { return weights };
        let statement = Statement::new(Occasion::Commit, weights.as_ref().err())
            .common("the weights' version", number as i64);
        let agreed = group.comm.turn().and_then(|mut turn| agree(&group, &mut turn, &statement));
        let weights = weights?;
        agreed.map(|_| weights)
    }

    /// Tells the other ranks, which make a call with transfers, that this one refuses its own.
    pub fn refuse_call(&self, error: &Error) {
        let Some(group) = self.find_group().filter(|group| group.checks_calls()) else { return };
        let statement = Statement::new(Occasion::Forward, Some(error));
        let told = group.comm.turn().and_then(|mut turn| agree(&group, &mut turn, &statement));
        // This rank answers what it refused; the others hear of it, or give up at their deadline.
        drop(told);
    }

    /// A forward with transfers.
    ///
    /// # Safety
    /// As for `forward`.
    pub(super) unsafe fn forward_together(
        &self,
        call: &Call<'_>,
        collective: &Collective<'_>,
        plan: Option<&Plan>,
    ) -> Result<Done, Error> {
        let group = self.group()?;
        let mut turn = group.comm.turn()?;
        let version = self.current.read();
        let together = Together::new(self, &group, call, collective);
        let prepared = self.prepare(&together, plan, &version);
        let said = (version.number, prepared.as_ref().err());
        let agreed = self.agree_on_call(&group, &mut turn, call, collective, said);
        let Prepared { plans, plans_made, weights } = prepared?;
        agreed?;
        // SAFETY: passed on; the workspace was compared.
        let counts = unsafe { together.run(&mut turn, weights, &plans) };
        // The others wait for what this rank will not send.
        let counts = counts.inspect_err(|_| group.comm.abort())?;
        Ok(Done { counts, weights_version: version.number, plans_made, moved: turn.moved() })
    }

    /// All that may be refused, and a plan for each product.
    fn prepare<'a>(
        &self,
        together: &Together<'_>,
        plan: Option<&Plan>,
        version: &'a Version,
    ) -> Result<Prepared<'a>, Error> {
        let call = together.call();
        call.ensure_disjoint()?;
        ensure_own_apart(call)?;
        ensure_replaceable(call)?;
        let weights = match together.has_products() {
            true => Some(version.ensure_ready(&self.spec, &self.shard, call)?),
            false => None,
        };
        let (plans, plans_made) = self.plans_for(together, plan, weights)?;
        call.lane.ensure_workspace(together.needed_bytes(&plans))?;
        together.ensure_indices()?;
        Ok(Prepared { plans, plans_made, weights })
    }

    /// The given plan's, an earlier call's, or new ones; and how many plans were made.
    fn plans_for(
        &self,
        together: &Together<'_>,
        plan: Option<&Plan>,
        weights: Option<&Weights>,
    ) -> Result<(Vec<backend::Plan>, u64), Error> {
        if let Some(plan) = plan {
            return Ok((self.suiting(plan, together, weights)?.to_vec(), 0));
        }
        let options = PlanOptions {
            workspace_limit: None,
            alignment: together.call().common_alignment(),
            is_timed: false,
        };
        if self.backend.standing_plan().is_some() {
            return Ok((self.product_plans(together, weights, &options)?, 0));
        }
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let lent = together.call().lane.workspace_bytes;
        let suits = |plan: &&Arc<Plan>| {
            plan.minimum_bytes() <= lent && self.suiting(plan, together, weights).is_ok()
        };
        if let Some(found) = plans.iter().find(suits) {
            return Ok((self.suiting(found, together, weights)?.to_vec(), 0));
        }
        let made = Arc::new(self.make_plan_together(together, weights, &options)?);
        let products = self.suiting(&made, together, weights)?.to_vec();
        self.keep(&mut plans, made);
        Ok((products, 1))
    }

    /// The plans of a plan's products, if it suits the call.
    fn suiting<'p>(
        &self,
        plan: &'p Plan,
        together: &Together<'_>,
        weights: Option<&Weights>,
    ) -> Result<&'p [backend::Plan], Error> {
        self.ensure_own(plan)?;
        plan.shape.ensure_fits(together.call())?;
        let products = plan.products.as_deref().unwrap_or_default();
        let examples = together.examples();
        ensure!(
            plan.products.is_some() && products.len() == examples.len(),
            PlanMismatch,
            "the plan was made for a call with other transfers; make it for one with the same \
             flags, and with encoder_rank_rows or without"
        );
        let Some(weights) = weights else { return Ok(products) };
        for (plan, example) in products.iter().zip(&examples) {
            self.backend.ensure_suits(plan, &together.job(example, weights))?;
        }
        Ok(products)
    }

    /// A plan for calls with transfers like this one.
    pub(super) fn plan_together(
        &self,
        call: &Call<'_>,
        collective: &Collective<'_>,
        options: &PlanOptions,
    ) -> Result<Plan, Error> {
        let group = self.group()?;
        let version = self.current.read();
        let together = Together::new(self, &group, call, collective);
        call.ensure_disjoint()?;
        ensure_replaceable(call)?;
        let weights = match together.has_products() {
            true => Some(version.ensure_ready(&self.spec, &self.shard, call)?),
            false => None,
        };
        self.make_plan_together(&together, weights, options)
    }

    fn make_plan_together(
        &self,
        together: &Together<'_>,
        weights: Option<&Weights>,
        options: &PlanOptions,
    ) -> Result<Plan, Error> {
        let products = self.product_plans(together, weights, options)?;
        let recommended = products.iter().map(|plan| plan.workspace_bytes).max().unwrap_or(0);
        let minimum = together.needed_bytes(&products);
        let device =
            backend::Plan::of_products(minimum, minimum.max(together.staged_bytes() + recommended));
        let shape = CallShape::of(together.call(), options.alignment);
        Ok(Plan { device, shape, outline: None, owner: self.number, products: Some(products) })
    }

    fn product_plans(
        &self,
        together: &Together<'_>,
        weights: Option<&Weights>,
        options: &PlanOptions,
    ) -> Result<Vec<backend::Plan>, Error> {
        let Some(weights) = weights else { return Ok(Vec::new()) };
        let alignment = options.alignment.min(together.part_alignment());
        let options = PlanOptions { alignment, ..*options };
        let plan = |example| self.backend.plan(&together.job(&example, weights), &options);
        together.examples().into_iter().map(plan).collect()
    }

    /// Holds the call against the others', where that is done.
    fn agree_on_call(
        &self,
        group: &Group,
        turn: &mut Turn<'_>,
        call: &Call<'_>,
        collective: &Collective<'_>,
        version: (u64, Option<&Error>),
    ) -> Result<(), Error> {
        // In an engine's group nothing that ranks tell each other comes before its end.
        if !group.checks_calls() || collective.phase != Phase::Whole {
            return Ok(());
        }
        let (weights_version, refusal) = version;
        let sequence = collective.sequence.as_ref();
        let statement = Statement::new(Occasion::Forward, refusal)
            .common("layer", call.layer)
            .common("layer_count", call.layer_count)
            .common("decoder.rows", collective.decoder_rows)
            .common("the encoder rows of all ranks", collective.encoder_rows)
            .common("XQKV_FORWARD_FLAG_GATHER_QUERY", collective.gathers_query.into())
            .common("XQKV_FORWARD_FLAG_GATHER_KEY_VALUE", collective.gathers_key_value.into())
            .common("encoder_rank_rows (a checksum)", sequence.map_or(0, Sequence::checksum))
            .common("encoder.dtype", sequence.map_or(0, |sequence| sequence.dtype as i64))
            .common("chunk_rows", sequence.map_or(0, |sequence| sequence.chunk_rows))
            .common("the weights' version", weights_version as i64);
        let statement = self.say_results(group, statement, call, collective);
        agree(group, turn, &statement).map(drop)
    }

    /// The dtypes of what is transferred.
    fn say_results(
        &self,
        group: &Group,
        statement: Statement,
        call: &Call<'_>,
        collective: &Collective<'_>,
    ) -> Statement {
        let dtype = |part: Part| {
            let is_moved = self.reach(group, collective, part) != Reach::Holders;
            let view = call.outputs().find(|(other, _)| *other == part).filter(|_| is_moved);
            view.map_or(0, |(_, view)| view.dtype() as i64)
        };
        // A rank without heads has no view to compare where only holders have.
        let is_query = collective.gathers_query;
        let is_key_value = collective.gathers_key_value;
        statement
            .common("query.dtype", if is_query { dtype(Part::Query) } else { 0 })
            .common("key.dtype", if is_key_value { dtype(Part::Key) } else { 0 })
            .common("value.dtype", if is_key_value { dtype(Part::Value) } else { 0 })
    }
}

/// A call that may run.
struct Prepared<'a> {
    plans: Vec<backend::Plan>,
    plans_made: u64,
    /// None on a rank that projects nothing.
    weights: Option<&'a Weights>,
}

/// Refuses outputs that share memory with the rows that this rank sends to the others.
fn ensure_own_apart(call: &Call<'_>) -> Result<(), Error> {
    let sequence = call.collective.as_ref().and_then(|collective| collective.sequence.as_ref());
    let Some(own) = sequence.and_then(|sequence| sequence.own.as_ref()) else { return Ok(()) };
    call.written().try_for_each(|(name, written)| {
        ensure_disjoint((name, &written), ("encoder", &own.footprint()))
    })
}

/// Refuses to add what other ranks send to what is there.
fn ensure_replaceable(call: &Call<'_>) -> Result<(), Error> {
    for (part, view) in call.outputs() {
        ensure!(
            !view.accumulates(),
            NotSupported,
            "{}.accumulate is 1 in a call with transfers; use 0, or a call without",
            part.name()
        );
    }
    Ok(())
}

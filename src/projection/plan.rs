//! A plan: what a backend prepared for one shape of call, and the shape that calls are held
//! against.

use super::Call;
use super::brief::Outline;
use crate::backend;
use crate::error::{Error, Status, ensure};
use crate::view::{Rows, Strides, View};

/// What a backend prepared, and for what.
#[derive(Clone)]
pub struct Plan {
    pub(super) device: backend::Plan,
    pub(super) shape: CallShape,
    /// If some of its calls may go the short way.
    pub(super) outline: Option<Outline>,
    /// The projection that made it.
    pub(super) owner: u64,
    /// Of a call with transfers: one for each of its products.
    pub(super) products: Option<Vec<backend::Plan>>,
}

impl Plan {
    /// Scratch memory that a call must lend.
    pub fn minimum_bytes(&self) -> usize {
        self.device.minimum_bytes
    }

    /// Scratch memory that a call should lend.
    pub fn workspace_bytes(&self) -> usize {
        self.device.workspace_bytes
    }
}

/// What all calls of one plan have in common, and the most rows they have.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CallShape {
    layer_count: i64,
    decoder: Option<SideShape>,
    encoder: Option<SideShape>,
    /// What every address is a multiple of.
    alignment: usize,
}

#[derive(Clone, Debug, PartialEq)]
struct SideShape {
    name: &'static str,
    most_rows: i64,
    row_stride: i64,
    dtype: i32,
    has_list: bool,
    views: [Option<ViewShape>; 2],
}

#[derive(Clone, Debug, PartialEq)]
struct ViewShape {
    name: &'static str,
    strides: Strides,
    group_rows: i64,
    dtype: i32,
    has_slots: bool,
    has_layer_data: bool,
    accumulates: bool,
}

impl CallShape {
    /// The shape of a call, whose rows become the most.
    pub(super) fn of(call: &Call<'_>, alignment: usize) -> Self {
        let decoder = call
            .decoder
            .as_ref()
            .map(|side| side_shape("decoder", &side.rows, [Some(("query", &side.query)), None]));
        let encoder = call.encoder.as_ref().map(|side| {
            let views = [Some(("key", &side.key)), Some(("value", &side.value))];
            side_shape("encoder", &side.rows, views)
        });
        Self { layer_count: call.layer_count, decoder, encoder, alignment }
    }

    /// Refuses a call of another shape, or with more rows.
    pub(super) fn ensure_fits(&self, call: &Call<'_>) -> Result<(), Error> {
        ensure!(
            self.layer_count == call.layer_count,
            PlanMismatch,
            "layer_count is {}, the plan was made for {}; make a plan for this",
            call.layer_count,
            self.layer_count
        );
        if let Some(side) = &call.decoder {
            let planned = self.decoder.as_ref().ok_or_else(|| unplanned("decoder"))?;
            planned.ensure_fits(&side.rows, [Some(&side.query), None])?;
        }
        if let Some(side) = &call.encoder {
            let planned = self.encoder.as_ref().ok_or_else(|| unplanned("encoder"))?;
            let views = [Some(&side.key), Some(&side.value)];
            planned.ensure_fits(&side.rows, views)?;
        }
        self.ensure_aligned(call)
    }

    fn ensure_aligned(&self, call: &Call<'_>) -> Result<(), Error> {
        let is_multiple = |address: usize| address & (self.alignment - 1) == 0;
        if is_multiple(call.address_bits()) {
            return Ok(());
        }
        call.addresses().try_for_each(|(name, address)| {
            ensure!(
                is_multiple(address),
                PlanMismatch,
                "{name}.data is {address:#x}, not a multiple of the {} bytes that the plan was \
                 made for; make it with a smaller alignment_bytes",
                self.alignment
            );
            Ok(())
        })
    }
}

fn unplanned(name: &str) -> Error {
    let message = format!("the plan was made without {name} rows; make one for a call with them");
    Error::new(Status::PlanMismatch, message)
}

impl SideShape {
    fn ensure_fits(&self, rows: &Rows, views: [Option<&View<'_>>; 2]) -> Result<(), Error> {
        let name = self.name;
        ensure_equal(name, "row_stride", self.row_stride, rows.row_stride())?;
        ensure_equal(name, "dtype", self.dtype.into(), rows.dtype() as i64)?;
        ensure_alike(name, "row_list", self.has_list, rows.list().is_some())?;
        ensure!(
            rows.count() <= self.most_rows,
            PlanMismatch,
            "{name}.rows is {}, the plan was made for at most {}; make it for more rows",
            rows.count(),
            self.most_rows
        );
        let views = self.views.iter().flatten().zip(views.into_iter().flatten());
        views.into_iter().try_for_each(|(planned, view)| planned.ensure_fits(view))
    }
}

impl ViewShape {
    fn of(name: &'static str, view: &View<'_>) -> Self {
        Self {
            name,
            strides: view.stepped_strides(),
            group_rows: view.group_rows().unwrap_or(0),
            dtype: view.dtype() as i32,
            has_slots: view.slots().is_some(),
            has_layer_data: !view.has_layer_stride(),
            accumulates: view.accumulates(),
        }
    }

    fn ensure_fits(&self, view: &View<'_>) -> Result<(), Error> {
        let given = Self::of(self.name, view);
        if *self == given {
            return Ok(());
        }
        let (strides, theirs) = (self.strides, given.strides);
        for (field, planned, given) in [
            ("dtype", i64::from(self.dtype), i64::from(given.dtype)),
            ("layer_stride", strides.layer, theirs.layer),
            ("group_rows", self.group_rows, given.group_rows),
            ("group_stride", strides.group, theirs.group),
            ("row_stride", strides.row, theirs.row),
            ("head_stride", strides.head, theirs.head),
            ("width_stride", strides.width, theirs.width),
            ("accumulate", self.accumulates.into(), given.accumulates.into()),
        ] {
            ensure_equal(self.name, field, planned, given)?;
        }
        ensure_alike(self.name, "slots", self.has_slots, given.has_slots)?;
        ensure_alike(self.name, "layer_data", self.has_layer_data, given.has_layer_data)
    }
}

fn ensure_alike(name: &str, field: &str, planned: bool, given: bool) -> Result<(), Error> {
    let with = |has: bool| if has { "with" } else { "without" };
    ensure!(
        planned == given,
        PlanMismatch,
        "the call is {} {name}.{field}, the plan was made {}; make a plan for this shape",
        with(given),
        with(planned)
    );
    Ok(())
}

fn ensure_equal(name: &str, field: &str, planned: i64, given: i64) -> Result<(), Error> {
    ensure!(
        planned == given,
        PlanMismatch,
        "{name}.{field} is {given}, the plan was made for {planned}; make a plan for this shape"
    );
    Ok(())
}

fn side_shape(
    name: &'static str,
    rows: &Rows,
    views: [Option<(&'static str, &View<'_>)>; 2],
) -> SideShape {
    let view = |(name, view): (&'static str, &View<'_>)| ViewShape::of(name, view);
    SideShape {
        name,
        most_rows: rows.count(),
        row_stride: rows.row_stride(),
        dtype: rows.dtype() as i32,
        has_list: rows.list().is_some(),
        views: views.map(|named| named.map(view)),
    }
}

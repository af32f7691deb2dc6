//! What an operation would do, without doing it.

use eratrack_model::names::{Mapping, StackId};
use eratrack_model::place::MetadataPlace;
use eratrack_model::plan::{self, Plan};
use eratrack_model::record::Record;
use eratrack_model::stack::{
    Beneath, Contents, Desired, Device, MetadataArea, Observed, Subject, Tracked, Volume,
};
use eratrack_model::units::{Bytes, DevNo, SECTOR_BYTES, Sectors};

use super::stage::over;
use super::{AttachRequest, Host, HostError, StageRequest};

/// Stands for the metadata device, which does not exist yet.
pub const METADATA_TO_COME: DevNo = DevNo { major: 0, minor: 0 };
/// Stands for the X of a stage, which does not exist yet.
pub const TOP_TO_COME: DevNo = DevNo { major: 0, minor: 1 };

/// What an attach would do.
#[derive(Clone, Debug)]
pub struct Preview {
    /// The record that would be kept.
    pub record: Record,
    /// What would be made first.
    pub steps_before: Vec<String>,
    /// What would be done then; [`METADATA_TO_COME`] and [`TOP_TO_COME`] stand for what the first
    /// steps make.
    pub plan: Plan,
}

impl Host {
    /// What [`Host::attach`] would do, or why it would not. Changes nothing.
    pub fn preview(&self, request: &AttachRequest) -> Result<Preview, HostError> {
        let lock = self.lock_stack(&request.stack)?;
        let (x, observed) = self.as_it_would_be(request)?;
        plan::eligible(&observed, request.granularity)?;
        let record = self.new_record(request, x, &observed)?;
        self.check_metadata_room(&lock, &record)?;
        let sectors = Sectors(record.metadata_size.0 / SECTOR_BYTES);
        let metadata = MetadataArea {
            number: METADATA_TO_COME,
            length: sectors,
            contents: Contents::Fresh,
            beneath: Vec::new(),
        };
        let (granularity, discards) = (record.granularity, record.discards);
        let desired = Desired::Tracked(Tracked { granularity, metadata, discards });
        let plan = plan::plan(&observed, &desired)?;
        Ok(Preview { steps_before: steps_before(request, &record), record, plan })
    }

    /// What [`Host::detach`] would do. Changes nothing.
    pub fn preview_detach(&self, stack: &StackId) -> Result<Plan, HostError> {
        let _lock = self.lock_stack(stack)?;
        let record = self.record_if_readable(stack);
        let observed = self.observe(stack, self.x_of(stack, record.as_ref())?)?;
        Ok(plan::plan(&observed, &Desired::Untracked)?)
    }

    fn as_it_would_be(&self, request: &AttachRequest) -> Result<(DevNo, Observed), HostError> {
        let Some(stage) = &request.stage else {
            return Ok((request.x, self.observe(&request.stack, Some(request.x))?));
        };
        self.can_be_staged(&stage.name, request.x)?;
        let mut observed = self.observe(&request.stack, None)?;
        observed.x = Subject::Mapped(self.top_to_come(&request.stack, stage, request.x)?);
        Ok((TOP_TO_COME, observed))
    }

    fn top_to_come(
        &self,
        stack: &StackId,
        stage: &StageRequest,
        beneath: DevNo,
    ) -> Result<Volume, HostError> {
        let machine = &self.machine;
        let device = Device {
            number: TOP_TO_COME,
            name: stage.name.clone(),
            uuid: Some(stack.uuid(Mapping::Top)),
            live: Some(over(beneath, machine.length(beneath)?)?),
            inactive: None,
            suspended: false,
            read_only: false,
            open_count: 0,
            discards: machine.discards(beneath)?,
        };
        Ok(Volume {
            device,
            pool_chunk: None,
            logical_block: machine.logical_block(beneath)?,
            dax: machine.dax(beneath)?,
            zoned: machine.zoned(beneath)?,
            beneath: vec![Beneath { number: beneath, uuid: None }],
        })
    }
}

fn steps_before(request: &AttachRequest, record: &Record) -> Vec<String> {
    let top = request.stage.as_ref().map(|stage| {
        format!("make /dev/mapper/{} over {}: {TOP_TO_COME} below", stage.name, request.x)
    });
    let Bytes(bytes) = record.metadata_size;
    let place = &record.metadata;
    let how = match place {
        MetadataPlace::File(_) => "behind a loop device",
        MetadataPlace::LogicalVolume(_) => "as a volume of its own",
        MetadataPlace::Pool(_) => "as an area of its own",
    };
    let metadata =
        format!("make the metadata, {bytes} bytes in {place}, {how}: {METADATA_TO_COME} below");
    top.into_iter().chain([metadata]).collect()
}

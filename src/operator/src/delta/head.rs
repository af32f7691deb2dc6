//! What a snapshot's status says of its list. Pure.

use eratrack_api::{ConditionType, EraSnapshot, EraSnapshotStatus, SnapshotType, condition};
use eratrack_model::Era;
use eratrack_model::delta::{Head, Line, Reach};
use eratrack_model::units::{Bytes, Granularity};
use kube::ResourceExt;

use super::error::ListError;

/// Of a complete snapshot, whose list it is, from where to where.
pub(crate) fn head(snapshot: &EraSnapshot) -> Result<Head, ListError> {
    let name = snapshot.name_any();
    let status = complete(snapshot)?;
    let lacks = |field| ListError::Status { snapshot: name.clone(), field };
    let block = status.block_size_bytes.and_then(|it| Granularity::new(Bytes(it)).ok());
    let line = Line {
        volume: status.volume_uid.clone().ok_or_else(|| lacks("volumeUID"))?,
        chain: status.chain_id.clone().ok_or_else(|| lacks("chainID"))?,
        block: block.ok_or_else(|| lacks("blockSizeBytes"))?,
        size: Bytes(status.size_bytes.ok_or_else(|| lacks("sizeBytes"))?),
    };
    let reach = match status.type_.ok_or_else(|| lacks("type"))? {
        SnapshotType::Full => Reach::Full(status.full_reason.clone().unwrap_or_default()),
        SnapshotType::Incremental => {
            Reach::Since(Era(status.since_era.ok_or_else(|| lacks("sinceEra"))?))
        }
    };
    let era = Era(status.era.ok_or_else(|| lacks("era"))?);
    Ok(Head { snapshot: name, line, reach, era })
}

/// Of those that are complete.
pub(crate) fn heads<'a>(snapshots: impl IntoIterator<Item = &'a EraSnapshot>) -> Vec<Head> {
    snapshots.into_iter().filter_map(|snapshot| head(snapshot).ok()).collect()
}

/// The status of a snapshot that is Ready.
pub(super) fn complete(snapshot: &EraSnapshot) -> Result<&EraSnapshotStatus, ListError> {
    let status = snapshot.status.as_ref();
    let ready = status.and_then(|it| condition::find(&it.conditions, ConditionType::Ready));
    match (status, ready) {
        (Some(status), Some(ready)) if ready.is_true() => Ok(status),
        _ => Err(ListError::NotReady {
            snapshot: snapshot.name_any(),
            phase: ready.map_or_else(|| "Pending".to_owned(), |ready| ready.reason.clone()),
        }),
    }
}

//! What to do about a refusal: one table, so that nothing is deleted for what a node cannot do and nothing blocks for what
//! one event is.

use ehe::refusal::Refusal;

/// What to do next. In no case is anything deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Link the same events again in a new strand.
    NewStrand,
    /// Ask the shard's next node, then wait.
    OtherNode,
    /// Wait.
    Later,
    /// One of the run's events is refused: find it, put it aside, go on with the others.
    FindEvent,
    /// The room or the channel is refused as a whole, so no event of it would fare better: wait, and look at the room anew.
    HoldRoom,
}

/// The remedy for each refusal of a submission.
pub(super) fn remedy(refusal: Refusal) -> Remedy {
    use Refusal::*;
    match refusal {
        StrandGap => Remedy::NewStrand,
        WrongShard | StorageFault | NoLeader | Stopping => Remedy::OtherNode,
        Overloaded => Remedy::Later,
        RoomUnknown | OtherAlliance | RoleNotAllowed | NotYourIdentity => Remedy::HoldRoom,
        // The run as such: smaller runs show which event it is.
        RunMalformed | BadSignature | EventMalformed | EventOutOfPlace | EventRepeated | KindNotAllowed
        | FrameMalformed => Remedy::FindEvent,
        NotInvited | GrantExpired | GrantRevoked | EpochNotCovered | HourNotCovered | NotOwner => Remedy::FindEvent,
        WrapMissing | WrapMismatch | ControlOutOfSequence | ControlMalformed | BadKey | GrantUnknown | LimitReached
        | RoomExists => Remedy::FindEvent,
        // Answers to a fetch, not to a submission. A clock that is wrong here must not keep back what waits in the outbox.
        RequestMalformed | RequestStale | RequestRepeated => Remedy::HoldRoom,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ehe::refusal::Fault;

    #[test]
    fn what_a_node_cannot_do_never_puts_an_event_aside() {
        for refusal in Refusal::ALL.iter().filter(|r| r.fault() == Fault::Node) {
            assert!(matches!(remedy(*refusal), Remedy::OtherNode | Remedy::Later), "{refusal:?}");
        }
    }
}

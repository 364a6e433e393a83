//! What to do about a refusal: one table, so that nothing is deleted for what a node cannot do and nothing blocks for what
//! one event is.

use ehe::id::RoomId;
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
        // A gateway makes no control events.
        DelegationEnded | NotDelegated | BeyondOwnRights | NotRecovery | RecoverySet | NotPossessed
        | DelegationUnknown => Remedy::FindEvent,
        WrapMissing | WrapMismatch | ControlOutOfSequence | ControlMalformed | BadKey | GrantUnknown | LimitReached
        | RoomExists => Remedy::FindEvent,
        // Answers to a fetch, not to a submission. A clock that is wrong here must not keep back what waits in the outbox.
        RequestMalformed | RequestStale | RequestRepeated | KeysReplaced => Remedy::HoldRoom,
    }
}

/// What a person can do about a room that does not show its control records. `shown`: nodes did before.
pub(super) fn of_a_person(refusal: Refusal, room: RoomId, shown: bool) -> String {
    use Refusal::*;
    match refusal {
        RoomUnknown if shown => "nodes showed this room before and say now that there is none: they have lost its data, or withhold it, and a new grant mends nothing. Tell the node's operator to restore it; what this gateway has not delivered stays in the spool".to_owned(),
        NotInvited | RoomUnknown | GrantExpired | GrantRevoked | EpochNotCovered | HourNotCovered => format!(
            "the patient runs `ehe grant --room {room} --to <this gateway's identity.pub> --append all`; if the room is not that patient's, look at [[assignment]]"
        ),
        RequestStale => "set this machine's clock".to_owned(),
        _ => "wait; if it stays, tell the alliance's support this reason".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ehe::refusal::Fault;

    #[test]
    fn a_room_that_did_not_invite_the_gateway_is_answered_with_the_command_that_does() {
        let remedy = of_a_person(Refusal::NotInvited, RoomId([7; 16]), true);
        assert!(remedy.contains(&format!("ehe grant --room {} --to", RoomId([7; 16]))), "{remedy}");
    }

    #[test]
    fn a_node_that_lost_a_room_is_not_the_patients_to_mend() {
        let remedy = of_a_person(Refusal::RoomUnknown, RoomId([7; 16]), true);
        assert!(remedy.contains("operator") && !remedy.contains("ehe grant"), "{remedy}");
        assert!(of_a_person(Refusal::RoomUnknown, RoomId([7; 16]), false).contains("ehe grant"));
    }

    #[test]
    fn what_a_node_cannot_do_never_puts_an_event_aside() {
        for refusal in Refusal::ALL.iter().filter(|r| r.fault() == Fault::Node) {
            assert!(matches!(remedy(*refusal), Remedy::OtherNode | Remedy::Later), "{refusal:?}");
        }
    }
}

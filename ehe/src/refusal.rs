//! Why something was refused: one table of rules, wire codes, faults and remedies (SPEC 11).

use minicbor::{Decode, Encode};

/// Whose affair a refusal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The sender's program or its input.
    Sender,
    /// The rights as the patient gave them; not an error of any program.
    Rights,
    /// The node or its operator; trying again elsewhere or later may help.
    Node,
}

macro_rules! refusals {
    ($($(#[$meta:meta])* $name:ident = $code:literal, $fault:ident, $text:literal;)*) => {
        /// A refusal as it goes over the wire and into the ledger.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, thiserror::Error)]
        #[cbor(index_only)]
        pub enum Refusal {
            $(#[doc = $text] $(#[$meta])* #[error($text)] #[n($code)] $name,)*
        }

        impl Refusal {
            /// Every refusal, for tests and documentation.
            pub const ALL: &'static [Refusal] = &[$(Refusal::$name,)*];

            /// The wire code.
            pub fn code(self) -> u16 {
                match self { $(Self::$name => $code,)* }
            }

            /// Whose affair it is.
            pub fn fault(self) -> Fault {
                match self { $(Self::$name => Fault::$fault,)* }
            }
        }
    };
}

refusals! {
    // Submitting: the run
    RunMalformed = 1, Sender, "the run is not well formed; the author's program is faulty";
    BadSignature = 2, Sender, "the signature does not verify under the author's key";
    StrandGap = 3, Sender, "the run does not follow its strand's end; link the events again in a new strand";
    EventMalformed = 4, Sender, "an event is not well formed, or is not one that the run names";
    EventOutOfPlace = 5, Sender, "an event names another room or author than its run";
    EventRepeated = 6, Sender, "the run names one event twice";
    KindNotAllowed = 7, Sender, "events of this kind are not accepted under the ledger's present rules";
    // Submitting: the room and its rights
    RoomUnknown = 10, Rights, "there is no such room here, or you are not invited to it";
    RoomExists = 11, Sender, "the room exists already";
    NotInvited = 12, Rights, "the patient has given this identity no such right in the room";
    GrantExpired = 13, Rights, "the grant's time is over; ask the patient for a new one";
    GrantRevoked = 14, Rights, "the grant was revoked by the patient, or in the patient's name";
    EpochNotCovered = 15, Rights, "a key epoch is unknown or not covered by a grant";
    HourNotCovered = 16, Rights, "the readings' hour lies outside the grant";
    NotOwner = 17, Rights, "only the patient may do this";
    WrapMissing = 18, Sender, "the event's key was not wrapped before it; submit the wrap first";
    WrapMismatch = 19, Sender, "the wrap is of another author, epoch or day than the event";
    ControlOutOfSequence = 20, Sender, "the control event does not follow the room's last one, nor names an earlier place where it may (recover and withdraw, from place 1 on); fetch the control records and try again";
    ControlMalformed = 21, Sender, "the control event's plain part is not well formed or contradicts itself";
    BadKey = 22, Sender, "a public key in the control event is no key";
    GrantUnknown = 23, Sender, "the control event names a grant that the room does not have";
    LimitReached = 24, Sender, "the room holds as many of these as it may";
    OtherAlliance = 25, Sender, "made for another alliance";
    DelegationEnded = 26, Rights, "the patient has withdrawn the delegation, or its time is over";
    NotDelegated = 27, Rights, "the patient has not delegated this right";
    BeyondOwnRights = 28, Rights, "a delegate cannot let others read what it may not read itself";
    NotRecovery = 29, Rights, "only the room's recovery key may do this";
    RecoverySet = 30, Rights, "the room has a recovery key; only that key can name another";
    NotPossessed = 31, Sender, "the new keys did not sign for the place that they are to take";
    DelegationUnknown = 32, Sender, "the control event withdraws a delegation that the room does not have";
    KeysReplaced = 33, Rights, "these keys were the owner's once; the owner has replaced them";
    // Reading
    RequestMalformed = 40, Sender, "the read request is not well formed";
    RequestStale = 41, Sender, "the request was made too long ago or lies in the future; check the clock";
    RequestRepeated = 42, Sender, "the request's nonce was used before";
    // The channel and the node
    WrongShard = 60, Node, "this node does not hold the room's shard; ask the nodes that the charter names";
    Overloaded = 61, Node, "the node has more to do than it may queue; try again later";
    StorageFault = 62, Node, "the node cannot store; its operator must look at it; try another node";
    FrameMalformed = 63, Sender, "the message is not one of this protocol";
    RoleNotAllowed = 64, Rights, "the charter does not allow this role to do that";
    NotYourIdentity = 65, Sender, "the request is signed by another identity than the channel's certificate names";
    NoLeader = 66, Node, "the shard has no ordering party at present; try again later";
    Stopping = 67, Node, "the node is stopping; try another node";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_refusal_has_a_code_of_its_own_and_is_encoded_as_that_code() {
        let codes: BTreeSet<u16> = Refusal::ALL.iter().map(|r| r.code()).collect();
        assert_eq!(codes.len(), Refusal::ALL.len());
        for refusal in Refusal::ALL {
            let bytes = crate::cbor::to_vec(refusal);
            assert_eq!(minicbor::decode::<u16>(&bytes).unwrap(), refusal.code());
            assert_eq!(crate::cbor::from_slice::<Refusal>(&bytes, 8).unwrap(), *refusal);
        }
    }
}

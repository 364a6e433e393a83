//! Roles of a channel, and what the charter lets each of them do at most.

use core::fmt;
use core::str::FromStr;

use minicbor::{Decode, Encode};

/// What a program is in the alliance. It comes from the certificate of its channel; rights come from the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A storage node.
    Node,
    /// A gateway in a home.
    Gateway,
    /// A patient's program.
    Patient,
    /// A clinician's program, or a hospital's system.
    Clinician,
}

/// The text is no role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a role (node, gateway, patient, clinician)")]
pub struct ParseRoleError;

impl Role {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::Node, Self::Gateway, Self::Patient, Self::Clinician];

    /// The role's name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Gateway => "gateway",
            Self::Patient => "patient",
            Self::Clinician => "clinician",
        }
    }

    fn bit(self) -> u8 {
        match self {
            Self::Node => 1,
            Self::Gateway => 2,
            Self::Patient => 4,
            Self::Clinician => 8,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = ParseRoleError;
    fn from_str(text: &str) -> Result<Self, ParseRoleError> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(ParseRoleError)
    }
}

/// A set of roles. One unsigned integer in CBOR: node 1, gateway 2, patient 4, clinician 8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RoleSet(u8);

impl RoleSet {
    const KNOWN: u8 = 15;

    /// The set of these roles.
    pub fn of(roles: &[Role]) -> Self {
        Self(roles.iter().fold(0, |bits, role| bits | role.bit()))
    }

    /// Whether the role is in the set.
    pub fn contains(self, role: Role) -> bool {
        self.0 & role.bit() != 0
    }

    /// The roles of the set.
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| self.contains(*role))
    }
}

impl<C> Encode<C> for RoleSet {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.u8(self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for RoleSet {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let bits = d.u8()?;
        if bits & !Self::KNOWN != 0 {
            return Err(minicbor::decode::Error::message("an unknown role in a set of roles"));
        }
        Ok(Self(bits))
    }
}

/// What each role may do at most. The charter only restricts: it never replaces a patient's grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Permissions {
    /// May submit runs.
    #[n(0)]
    pub submit: RoleSet,
    /// May ask for events.
    #[n(1)]
    pub read: RoleSet,
    /// May host shards.
    #[n(2)]
    pub host: RoleSet,
}

impl Default for Permissions {
    /// Gateways, patients and clinicians submit and read (a gateway reads instructions); nodes host.
    fn default() -> Self {
        let people = RoleSet::of(&[Role::Gateway, Role::Patient, Role::Clinician]);
        Self { submit: people, read: people, host: RoleSet::of(&[Role::Node]) }
    }
}

//! Which roles a caller holds, for rules that name roles and are no policies.

use provost_types::{Action, Name, TokenFacts};

use crate::{AccessRequest, Facts, PolicyEngine};

impl PolicyEngine {
    /// Whether the caller holds the role now: by a binding that lasts, or by what their token says.
    pub fn holds_role(
        &self,
        tenant: &Name,
        principal: &Name,
        token: Option<&TokenFacts>,
        role: &Name,
        now_ns: u64,
    ) -> bool {
        let facts = Facts::default();
        // Only who asks matters.
        let asked = AccessRequest {
            tenant,
            principal,
            token,
            action: Action::CallTool,
            plugin: None,
            target: "",
            facts: &facts,
        };
        self.caller(&asked).is_ok_and(|(tenant, caller)| tenant.holds(&caller, role, now_ns))
    }
}

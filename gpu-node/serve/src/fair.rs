//! Sharing the device among tenants, by tokens.
//!
//! Pure. Steps are shared by deficit round-robin (Shreedhar and Varghese, 1995): in each round a
//! tenant may spend [`QUANTUM_TOKENS`] more, what it cannot spend for want of room in the step it
//! keeps, what it does not want it loses. A single token that continues an answer always goes first,
//! so that running answers do not stall behind prompts; it is charged all the same. Who may begin
//! next is decided by what tenants have used since they came: the one that used least goes first.

use std::collections::{HashMap, HashSet, VecDeque};

/// Tokens a tenant may spend in a round.
const QUANTUM_TOKENS: i64 = 64;
/// The most that a tenant's running answers can put its prompts behind.
const MOST_DEBT_TOKENS: i64 = 4 * QUANTUM_TOKENS;
/// What a request counts as until its tokens are computed and charged.
const EXPECTED_TOKENS: u64 = 256;
/// The most that a tenant is behind those who have used less: what it used while nobody else wanted it
/// would otherwise keep it waiting for hours once somebody does.
const MOST_LEAD_TOKENS: u64 = 256 * EXPECTED_TOKENS;

/// The accounts of the tenants that have something to do here.
#[derive(Debug, Default)]
pub(crate) struct FairShare {
    accounts: HashMap<String, Account>,
    /// Whose turn it is, front first.
    ring: VecDeque<String>,
    /// The tenant at the front has had its quantum and could not spend it.
    interrupted: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    deficit: i64,
    used: u64,
}

/// Tokens that one sequence could compute in this step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Want<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) tokens: usize,
}

impl FairShare {
    /// Tokens for each want, at most `budget` in all.
    pub(crate) fn grant(&mut self, wants: &[Want<'_>], budget: usize) -> Vec<usize> {
        let mut budget = budget;
        let mut grants = vec![0; wants.len()];
        for (want, grant) in wants.iter().zip(&mut grants) {
            self.enter(want.tenant);
            if want.tokens == 1 && budget > 0 {
                *grant = 1;
                budget -= 1;
                self.charge(want.tenant, 1);
            }
        }
        let mut of_tenant: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, want) in wants.iter().enumerate().filter(|(_, want)| want.tokens > 1) {
            of_tenant.entry(want.tenant).or_default().push(index);
        }
        while budget > 0 && !of_tenant.is_empty() {
            let Some(tenant) = self.ring.front().cloned() else { break };
            let Some(theirs) = of_tenant.get(tenant.as_str()) else {
                self.next_turn();
                continue;
            };
            let account = self.accounts.entry(tenant.clone()).or_default();
            if !std::mem::take(&mut self.interrupted) {
                account.deficit += QUANTUM_TOKENS;
            }
            let mut lacking = 0;
            for index in theirs {
                let (Some(want), Some(grant)) = (wants.get(*index), grants.get_mut(*index)) else { continue };
                let may = usize::try_from(account.deficit).unwrap_or(0).min(budget);
                let more = (want.tokens - *grant).min(may);
                *grant += more;
                budget -= more;
                lacking += want.tokens - *grant;
                account.deficit -= more as i64;
                account.used += more as u64;
            }
            if lacking == 0 {
                account.deficit = account.deficit.min(0);
                of_tenant.remove(tenant.as_str());
                self.next_turn();
            } else if account.deficit > 0 {
                // The step is full: it goes on here next time.
                self.interrupted = true;
            } else {
                self.next_turn();
            }
        }
        grants
    }

    /// Books tokens that were computed outside of grants.
    pub(crate) fn charge(&mut self, tenant: &str, tokens: u64) {
        self.enter(tenant);
        if let Some(account) = self.accounts.get_mut(tenant) {
            account.used += tokens;
            let deficit = account.deficit.saturating_sub_unsigned(tokens);
            account.deficit = deficit.max(-MOST_DEBT_TOKENS);
        }
    }

    /// Opens a tenant's account, at what those have used who used least: absence saves nothing up.
    pub(crate) fn enter(&mut self, tenant: &str) {
        if !self.accounts.contains_key(tenant) {
            let used = self.least_used();
            self.accounts.insert(tenant.to_owned(), Account { deficit: 0, used });
            self.ring.push_back(tenant.to_owned());
        }
    }

    /// Where a tenant stands in line with one more request, when it has `begun` already: lower goes
    /// first.
    pub(crate) fn rank(&self, tenant: &str, begun: usize) -> u64 {
        let used = self.accounts.get(tenant).map_or_else(|| self.least_used(), |account| account.used);
        used.saturating_add(EXPECTED_TOKENS.saturating_mul(begun as u64))
    }

    /// Forgets tenants that have nothing to do here any more: nobody saves up by staying away, and
    /// nobody pays for ever.
    pub(crate) fn keep(&mut self, present: &HashSet<&str>) {
        if let Some(front) = self.ring.front()
            && !present.contains(front.as_str())
        {
            self.interrupted = false;
        }
        self.ring.retain(|tenant| present.contains(tenant.as_str()));
        self.accounts.retain(|tenant, _| present.contains(tenant.as_str()));
        let most = self.least_used().saturating_add(MOST_LEAD_TOKENS);
        self.accounts.values_mut().for_each(|account| account.used = account.used.min(most));
    }

    /// Where who comes now begins: with those who have used least.
    fn least_used(&self) -> u64 {
        self.accounts.values().map(|account| account.used).min().unwrap_or(0)
    }

    fn next_turn(&mut self) {
        self.interrupted = false;
        self.ring.rotate_left(usize::from(self.ring.len() > 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(tenant: &str, tokens: usize) -> Want<'_> {
        Want { tenant, tokens }
    }

    #[test]
    fn answers_that_run_go_before_prompts() {
        let mut fair = FairShare::default();
        let grants = fair.grant(&[want("a", 128), want("b", 1), want("a", 1), want("b", 128)], 130);
        assert_eq!(grants[1..3], [1, 1]);
        assert_eq!(grants[0] + grants[3], 128);
        assert!(grants[0].abs_diff(grants[3]) <= 2, "{grants:?}");
    }

    #[test]
    fn a_step_is_never_overfull_and_never_idle() {
        let mut fair = FairShare::default();
        for budget in [1, 3, 64, 100, 500] {
            let grants = fair.grant(&[want("a", 100), want("a", 90), want("b", 128), want("c", 1)], budget);
            assert_eq!(grants.iter().sum::<usize>(), budget.min(319), "{grants:?}");
        }
    }

    #[test]
    fn many_prompts_of_one_tenant_count_as_much_as_one_of_another() {
        let mut fair = FairShare::default();
        let wants = [want("many", 128), want("many", 128), want("many", 128), want("many", 128), want("one", 128)];
        let mut sums = [0; 2];
        for _ in 0..50 {
            let grants = fair.grant(&wants, 100);
            sums[0] += grants[..4].iter().sum::<usize>();
            sums[1] += grants[4];
        }
        assert!(sums[0].abs_diff(sums[1]) <= 128, "{sums:?}");
    }

    #[test]
    fn who_streams_much_gets_less_of_the_rest() {
        let mut fair = FairShare::default();
        let mut wants = vec![want("streams", 1); 20];
        wants.extend([want("streams", 128), want("reads", 128)]);
        let (mut streams, mut reads) = (0, 0);
        for _ in 0..50 {
            let grants = fair.grant(&wants, 84);
            streams += grants[..21].iter().sum::<usize>();
            reads += grants[21];
        }
        assert!(streams.abs_diff(reads) <= 200, "{streams} {reads}");
    }

    #[test]
    fn who_used_least_is_next_and_absence_saves_nothing_up() {
        let mut fair = FairShare::default();
        fair.charge("a", 10_000);
        assert_eq!(fair.rank("new", 0), 10_000, "no credit for the time before it came");
        fair.enter("b");
        fair.charge("a", 1);
        assert!(fair.rank("b", 0) < fair.rank("a", 0), "b began where a was");
        fair.charge("b", 1_000);
        assert!(fair.rank("a", 0) < fair.rank("b", 0));
        assert!(fair.rank("b", 1) > fair.rank("b", 0));
        fair.keep(&HashSet::from(["b"]));
        assert_eq!(fair.rank("a", 0), fair.rank("b", 0));
    }

    #[test]
    fn what_was_used_while_nobody_wanted_it_is_not_held_against_anyone_for_long() {
        let mut fair = FairShare::default();
        let both = HashSet::from(["light", "heavy"]);
        fair.enter("light");
        fair.charge("heavy", 1_000_000_000);
        fair.keep(&both);
        assert!(fair.rank("light", 0) < fair.rank("heavy", 0));
        fair.charge("light", MOST_LEAD_TOKENS + 1);
        fair.keep(&both);
        assert!(fair.rank("heavy", 0) < fair.rank("light", 0));
    }
}

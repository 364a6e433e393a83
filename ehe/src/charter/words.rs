//! Shards for people: the same thing is said of many of them once.

/// "shard 4", "shards 0–3, 7". The numbers come in order.
pub fn shards_in_words<'a>(numbers: impl IntoIterator<Item = &'a u16>) -> String {
    let (mut runs, mut many): (Vec<(u16, u16)>, bool) = (Vec::new(), false);
    for number in numbers.into_iter().copied() {
        many = !runs.is_empty();
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let said = runs.iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        1 => format!("{first}, {last}"),
        _ => format!("{first}–{last}"),
    });
    format!("shard{} {}", if many { "s" } else { "" }, said.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_that_follow_each_other_are_one_range() {
        assert_eq!(shards_in_words(&[4]), "shard 4");
        assert_eq!(shards_in_words(&[0, 1]), "shards 0, 1");
        assert_eq!(shards_in_words(&[0, 1, 2, 3, 7, 9, 10, u16::MAX]), "shards 0–3, 7, 9, 10, 65535");
    }
}

//! Smaller trees that still fail.

use super::Relation;

/// Tries that one shrinking takes, at the most.
const TRIES: usize = 300;

/// The smallest tree found that still `fails`.
pub async fn shrink(relation: Relation, mut fails: impl AsyncFnMut(&Relation) -> bool) -> Relation {
    let mut smallest = relation;
    let mut tries = 0;
    'smaller: loop {
        for candidate in smaller(&smallest) {
            tries += 1;
            if tries > TRIES {
                return smallest;
            }
            if fails(&candidate).await {
                smallest = candidate;
                continue 'smaller;
            }
        }
        return smallest;
    }
}

/// Each input in place of the whole, then the whole with each input made smaller.
fn smaller(relation: &Relation) -> Vec<Relation> {
    let inputs = inputs(relation);
    let mut candidates: Vec<Relation> = inputs.iter().map(|i| (*i).clone()).collect();
    for (position, input) in inputs.iter().enumerate() {
        candidates.extend(smaller(input).into_iter().map(|small| {
            let mut changed = relation.clone();
            if let Some(place) = inputs_mut(&mut changed).into_iter().nth(position) {
                *place = small;
            }
            changed
        }));
    }
    candidates.extend(simpler(relation));
    candidates
}

/// The same node with less of its own.
fn simpler(relation: &Relation) -> Option<Relation> {
    let mut changed = relation.clone();
    match &mut changed {
        Relation::Aggregate { keys, calls, .. } if keys.len() + calls.len() > 1 => {
            if calls.len() > 1 {
                calls.truncate(1)
            } else {
                keys.truncate(keys.len() - 1)
            }
        }
        Relation::Join { more: more @ Some(_), .. } => *more = None,
        Relation::Project(_, scalars) if scalars.len() > 1 => scalars.truncate(1),
        Relation::Limit { offset: offset @ 1.., .. } => *offset = 0,
        _ => return None,
    }
    Some(changed)
}

fn inputs(relation: &Relation) -> Vec<&Relation> {
    match relation {
        Relation::Table(_) => vec![],
        Relation::Filter(input, _) | Relation::Project(input, _) | Relation::Distinct(input) => vec![input],
        Relation::Aggregate { input, .. } | Relation::Limit { input, .. } | Relation::Window { input, .. } => {
            vec![input]
        }
        Relation::Join { left, right, .. } | Relation::Set { left, right, .. } => vec![left, right],
        Relation::Member { input, of, .. } => vec![input, of],
        Relation::Compared { input, with, .. } => vec![input, with],
    }
}

fn inputs_mut(relation: &mut Relation) -> Vec<&mut Relation> {
    match relation {
        Relation::Table(_) => vec![],
        Relation::Filter(input, _) | Relation::Project(input, _) | Relation::Distinct(input) => vec![input],
        Relation::Aggregate { input, .. } | Relation::Limit { input, .. } | Relation::Window { input, .. } => {
            vec![input]
        }
        Relation::Join { left, right, .. } | Relation::Set { left, right, .. } => vec![left, right],
        Relation::Member { input, of, .. } => vec![input, of],
        Relation::Compared { input, with, .. } => vec![input, with],
    }
}

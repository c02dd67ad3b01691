//! Which stage is built when: those that are wanted, each as soon as all that it needs is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::stage::{Builder, Done};
use super::{Build, Event, Executor, Image};
use crate::dockerfile::Instruction;
use crate::expand::Words;
use crate::stages::{Graph, Stages};
use crate::variables::Globals;

/// What a build comes to, stage for stage.
pub(super) struct Plan<'a> {
    pub build: &'a Build,
    pub stages: &'a Stages,
    pub graph: Graph,
    pub globals: &'a Globals,
    pub words: Words,
    /// How many steps there are.
    pub total: usize,
    /// The stages to build, each after all that it needs.
    order: Vec<usize>,
    done: Mutex<BTreeMap<usize, Done>>,
    declared: Mutex<BTreeSet<String>>,
}

/// How far a build has come.
struct Progress<E> {
    /// Stages that nobody has begun.
    left: Vec<usize>,
    running: usize,
    failed: Option<E>,
    /// Whether the thread of a stage has panicked: the panic goes on when all the others have ended.
    panicked: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many steps a stage has.
fn steps(stages: &Stages, graph: &Graph, index: usize) -> usize {
    let replaced = graph.inputs.get(index).is_some_and(|input| input.replaced);
    let own = stages.stages.get(index).filter(|_| !replaced).map_or(0, |stage| stage.statements.len());
    own + 1
}

impl<'a> Plan<'a> {
    pub fn new(
        build: &'a Build,
        stages: &'a Stages,
        graph: Graph,
        globals: &'a Globals,
        words: Words,
    ) -> Self {
        let order = if build.all { (0..=graph.target).collect() } else { graph.order() };
        let steps = order.iter().map(|index| steps(stages, &graph, *index));
        let total = stages.preamble.len() + steps.sum::<usize>() + build.labels.len();
        let mut declared: BTreeSet<String> =
            stages.arguments.iter().map(|argument| argument.name.clone()).collect();
        // Those of stages that nobody needs count, too: no value is given in vain that some stage asks for.
        for statement in stages.stages.iter().flat_map(|stage| &stage.statements) {
            if let Instruction::Arg(arguments) = &statement.instruction {
                declared.extend(arguments.iter().map(|argument| argument.name.clone()));
            }
        }
        let (done, declared) = (Mutex::default(), Mutex::new(declared));
        Plan { build, stages, graph, globals, words, total, order, done, declared }
    }

    /// Names of all arguments that were declared.
    pub fn declared(&self) -> BTreeSet<String> {
        lock(&self.declared).clone()
    }

    /// An argument is declared.
    pub fn declare(&self, name: &str) {
        lock(&self.declared).insert(name.to_owned());
    }

    /// What a stage came to, if it is done.
    pub fn done(&self, index: usize) -> Option<Done> {
        lock(&self.done).get(&index).cloned()
    }

    /// Whether two of the stages do not need each other, so that what they tell may come at once.
    fn is_parallel(&self) -> bool {
        self.build.jobs > 1
            && self.order.iter().enumerate().any(|(place, index)| {
                let needs = self.all_needs(*index);
                self.order[..place].iter().any(|earlier| !needs.contains(earlier))
            })
    }

    fn all_needs(&self, index: usize) -> BTreeSet<usize> {
        let (mut found, mut open) = (BTreeSet::new(), self.graph.needs(index));
        while let Some(index) = open.pop_last() {
            if found.insert(index) {
                open.extend(self.graph.needs(index));
            }
        }
        found
    }

    /// The number of the step before a stage's first one.
    fn number(&self, index: usize) -> usize {
        let before = self.order.iter().take_while(|own| **own < index);
        let steps = before.map(|own| steps(self.stages, &self.graph, *own));
        self.stages.preamble.len() + steps.sum::<usize>()
    }

    /// Builds a stage, and first whatever it needs that is not there.
    pub fn stage<E: Executor>(&self, index: usize, executor: &mut E) -> Result<(), E::Error> {
        if self.done(index).is_some() {
            return Ok(());
        }
        for needed in self.graph.needs(index) {
            self.stage(needed, executor)?;
        }
        let graph = self.graph.clone();
        let done = Builder { plan: self, graph, executor, number: self.number(index) }.stage(index)?;
        lock(&self.done).insert(index, done);
        Ok(())
    }

    /// Builds all that is wanted. Gives the target's image, and how many layers its base has.
    pub fn carry_out<E: Executor>(&self, executor: &mut E) -> Result<Option<(Image, usize)>, E::Error> {
        if self.is_parallel() {
            self.all_at_once(executor)?;
        } else {
            for index in &self.order {
                self.stage(*index, executor)?;
            }
        }
        let result = self.done(self.graph.target).and_then(|done| Some((done.image?, done.base)));
        if let Some((image, _)) = &result {
            executor.tell(Event::Stage(&image.id))?;
        }
        Ok(result)
    }

    fn all_at_once<E: Executor>(&self, executor: &mut E) -> Result<(), E::Error> {
        let begun = Progress { left: self.order.clone(), running: 0, failed: None, panicked: false };
        let (progress, changed) = (Mutex::new(begun), Condvar::new());
        std::thread::scope(|scope| {
            let mut now = lock(&progress);
            loop {
                if now.failed.is_some() || now.panicked {
                    // What they do now is for nothing.
                    executor.stop();
                    now.left.clear();
                }
                if now.left.is_empty() && now.running == 0 {
                    break;
                }
                let ready = now.left.iter().position(|index| self.is_ready(*index));
                match ready.filter(|_| now.running < self.build.jobs) {
                    Some(place) => {
                        let index = now.left.remove(place);
                        now.running += 1;
                        let mut fork = executor.fork(Some(&self.stages.label(index)));
                        let (progress, changed) = (&progress, &changed);
                        scope.spawn(move || {
                            let _end = End { progress, changed };
                            if let Err(error) = self.stage(index, &mut fork) {
                                lock(progress).failed.get_or_insert(error);
                            }
                        });
                    }
                    None => now = changed.wait(now).unwrap_or_else(PoisonError::into_inner),
                }
            }
        });
        match progress.into_inner().unwrap_or_else(PoisonError::into_inner).failed {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn is_ready(&self, index: usize) -> bool {
        let done = lock(&self.done);
        self.graph.needs(index).iter().all(|needed| done.contains_key(needed))
    }
}

/// Tells of a stage's end, however that comes about.
struct End<'a, E> {
    progress: &'a Mutex<Progress<E>>,
    changed: &'a Condvar,
}

impl<E> Drop for End<'_, E> {
    fn drop(&mut self) {
        let mut progress = lock(self.progress);
        progress.running -= 1;
        progress.panicked |= std::thread::panicking();
        drop(progress);
        self.changed.notify_all();
    }
}

//! Graphs: recorded work, and its launch as chains of streams of their own.

use crate::clock::Point;
use crate::handle::Noun;
use crate::launch::stale;
use crate::machine::Machine;
use crate::status::{INVALID_HANDLE, INVALID_VALUE, NOT_SUPPORTED, Status};
use crate::stream::{Role, Work};
use std::sync::Arc;

pub struct Node {
    pub work: Work,
    /// The nodes that come before, by index; always smaller ones.
    pub after: Vec<usize>,
}

#[derive(Clone)]
pub struct Graph {
    pub context: u64,
    pub nodes: Arc<[Node]>,
}

/// An instantiated graph.
pub struct Exec {
    graph: Graph,
    /// The stream on which each node runs.
    lanes: Vec<u64>,
}

impl Machine {
    pub fn add_graph(&mut self, graph: Graph) -> u64 {
        let handle = self.new_handle(Noun::Graph);
        self.graphs.insert(handle, graph);
        handle
    }

    pub fn instantiate(&mut self, handle: u64) -> Status<u64> {
        let graph = self.graphs.get(&handle).cloned();
        let graph = graph.ok_or_else(|| stale_value(Noun::Graph, "graph", handle))?;
        let lanes = self.lanes(&graph);
        let exec = self.new_handle(Noun::GraphExec);
        self.execs.insert(exec, Exec { graph, lanes });
        Ok(exec)
    }

    /// A node goes on with the lane of the first node before it that nobody went on with yet.
    fn lanes(&mut self, graph: &Graph) -> Vec<u64> {
        let mut lanes: Vec<u64> = Vec::new();
        let mut ends: Vec<usize> = Vec::new();
        for (index, node) in graph.nodes.iter().enumerate() {
            let end = ends.iter().position(|end| node.after.contains(end));
            let lane = match end {
                Some(position) => lanes[ends.swap_remove(position)],
                None => self.add_stream(graph.context, Role::Lane),
            };
            lanes.push(lane);
            ends.push(index);
        }
        lanes
    }

    /// Runs all nodes after the stream's work and after the graph's own earlier launches.
    pub fn launch_graph(&mut self, handle: u64, stream: u64) -> Status {
        let stream = self.stream(stream)?;
        if self.capturing(stream)?.is_some() {
            return Err(NOT_SUPPORTED);
        }
        let exec = self.execs.get(&handle);
        let exec = exec.ok_or_else(|| stale_value(Noun::GraphExec, "graph", handle))?;
        let (graph, lanes) = (exec.graph.clone(), exec.lanes.clone());
        if graph.context != self.streams[&stream].context {
            return Err(INVALID_HANDLE);
        }
        let earlier: Vec<Point> = lanes.iter().filter_map(|lane| self.tail(*lane)).collect();
        let begin = self.start(stream, &earlier, Work::Nothing)?;
        let mut ends: Vec<Point> = Vec::new();
        for (node, lane) in graph.nodes.iter().zip(&lanes) {
            let mut after: Vec<Point> = node.after.iter().map(|node| ends[*node].clone()).collect();
            after.push(begin.clone());
            ends.push(self.start(*lane, &after, node.work.clone())?);
        }
        self.start(stream, &ends, Work::Nothing).map(|_| ())
    }

    pub fn destroy_exec(&mut self, handle: u64) -> Status {
        let exec = self.execs.remove(&handle);
        let exec = exec.ok_or_else(|| stale_value(Noun::GraphExec, "graph", handle))?;
        exec.lanes.into_iter().for_each(|lane| self.retire_stream(lane));
        Ok(())
    }

    pub fn destroy_graph(&mut self, handle: u64) -> Status {
        let found = self.graphs.remove(&handle);
        found.map(|_| ()).ok_or_else(|| stale_value(Noun::Graph, "graph", handle))
    }
}

/// Graphs' functions answer "invalid value" where streams' answer "invalid handle".
fn stale_value(noun: Noun, what: &str, handle: u64) -> i32 {
    stale(noun, what, handle);
    INVALID_VALUE
}

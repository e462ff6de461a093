//! Two layers, tanh between them, softmax at the end, plain stochastic gradient descent.

use crate::data::{Digit, Random};

pub(crate) const INPUTS: usize = 64;
pub(crate) const HIDDEN: usize = 64;
pub(crate) const CLASSES: usize = 10;

/// A layer: weights by output, then input; one bias an output.
#[derive(Clone)]
pub(crate) struct Layer<const IN: usize, const OUT: usize> {
    pub(crate) weights: Vec<[f32; IN]>,
    biases: [f32; OUT],
}

impl<const IN: usize, const OUT: usize> Layer<IN, OUT> {
    /// Creates a net with small random weights (Glorot and Bengio 2010), no biases.
    fn new(random: &mut Random) -> Self {
        let scale = (6.0 / (IN + OUT) as f32).sqrt();
        let weights = (0..OUT).map(|_| std::array::from_fn(|_| random.weight() * scale)).collect();
        Self { weights, biases: [0.0; OUT] }
    }

    fn zero() -> Self {
        Self { weights: vec![[0.0; IN]; OUT], biases: [0.0; OUT] }
    }

    fn forward(&self, input: &[f32; IN]) -> [f32; OUT] {
        std::array::from_fn(|out| {
            let sum: f32 = self.weights[out].iter().zip(input).map(|(weight, x)| weight * x).sum();
            sum + self.biases[out]
        })
    }

    /// Adds the gradient of one example.
    fn accumulate(&mut self, input: &[f32; IN], delta: &[f32; OUT]) {
        for (out, delta) in delta.iter().enumerate() {
            self.weights[out].iter_mut().zip(input).for_each(|(gradient, x)| *gradient += delta * x);
            self.biases[out] += delta;
        }
    }

    fn descend(&mut self, gradient: &Self, rate: f32) {
        for (row, slope) in self.weights.iter_mut().zip(&gradient.weights) {
            row.iter_mut().zip(slope).for_each(|(weight, slope)| *weight -= rate * slope);
        }
        self.biases.iter_mut().zip(&gradient.biases).for_each(|(bias, slope)| *bias -= rate * slope);
    }

    fn values(&self) -> impl Iterator<Item = &f32> {
        self.weights.iter().flatten().chain(&self.biases)
    }

    fn values_mut(&mut self) -> impl Iterator<Item = &mut f32> {
        self.weights.iter_mut().flatten().chain(&mut self.biases)
    }

    fn square_norm(&self) -> f32 {
        let weights = self.weights.iter().flatten().map(|w| w * w).sum::<f32>();
        weights + self.biases.iter().map(|bias| bias * bias).sum::<f32>()
    }
}

/// The network.
#[derive(Clone)]
pub(crate) struct Net {
    pub(crate) first: Layer<INPUTS, HIDDEN>,
    pub(crate) second: Layer<HIDDEN, CLASSES>,
}

/// Measurements of one step of training.
pub(crate) struct Step {
    pub(crate) loss: f32,
    pub(crate) accuracy: f32,
    pub(crate) gradient_norm: f32,
}

impl Net {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x5eed);
        Self { first: Layer::new(&mut random), second: Layer::new(&mut random) }
    }

    /// Returns all weights and biases, always in the same order.
    pub(crate) fn values(&self) -> impl Iterator<Item = &f32> {
        self.first.values().chain(self.second.values())
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut f32> {
        self.first.values_mut().chain(self.second.values_mut())
    }

    /// Takes one step down the mean gradient of a batch.
    pub(crate) fn learn<'a>(&mut self, batch: impl ExactSizeIterator<Item = &'a Digit>, rate: f32) -> Step {
        let (mut first, mut second) = (Layer::zero(), Layer::zero());
        let (mut loss, mut correct) = (0.0, 0);
        let size = batch.len() as f32;
        for digit in batch {
            let hidden = self.first.forward(&digit.pixels).map(f32::tanh);
            let output = softmax(self.second.forward(&hidden));
            loss += surprise(output[digit.class]);
            correct += usize::from(is_answer(&output, digit.class));
            // The slope of cross-entropy after softmax, then back through tanh.
            let mut delta = output;
            delta[digit.class] -= 1.0;
            second.accumulate(&hidden, &delta);
            let mut back = [0.0; HIDDEN];
            for (weights, delta) in self.second.weights.iter().zip(&delta) {
                back.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += weight * delta);
            }
            let back = std::array::from_fn(|i| back[i] * (1.0 - hidden[i] * hidden[i]));
            first.accumulate(&digit.pixels, &back);
        }
        self.first.descend(&first, rate / size);
        self.second.descend(&second, rate / size);
        let gradient_norm = (first.square_norm() + second.square_norm()).sqrt() / size;
        Step { loss: loss / size, accuracy: correct as f32 / size, gradient_norm }
    }

    /// Returns the share of images that it names rightly, and its mean loss.
    pub(crate) fn examine(&self, digits: &[Digit]) -> (f64, f64) {
        let (mut correct, mut loss) = (0, 0.0);
        for digit in digits {
            let hidden = self.first.forward(&digit.pixels).map(f32::tanh);
            let output = softmax(self.second.forward(&hidden));
            correct += usize::from(is_answer(&output, digit.class));
            loss += f64::from(surprise(output[digit.class]));
        }
        let size = digits.len() as f64;
        (correct as f64 / size, loss / size)
    }
}

/// Returns the loss of one example. Finite for a probability that was rounded to zero; NaN stays NaN.
fn surprise(probability: f32) -> f32 {
    let least = f32::MIN_POSITIVE;
    -(if probability < least { least } else { probability }).ln()
}

fn softmax(logits: [f32; CLASSES]) -> [f32; CLASSES] {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers = logits.map(|logit| (logit - largest).exp());
    let sum: f32 = powers.iter().sum();
    powers.map(|power| power / sum)
}

fn is_answer(output: &[f32; CLASSES], class: usize) -> bool {
    let others = output.iter().enumerate().filter(|(other, _)| *other != class);
    others.into_iter().all(|(_, probability)| *probability < output[class])
}

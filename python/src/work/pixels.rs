//! Images: pixels of any layout, as rows of bytes, and PNG files of them.

use crate::array::{Array, Kind};

/// Pixels row by row from the top, a byte a channel.
pub(crate) struct Pixels {
    pub(crate) bytes: Vec<u8>,
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// 2 (gray and opacity), 3 or 4; 1 in frames of a video.
    pub(crate) channels: usize,
}

/// Grid of the images of an array: how they lie in it, and how they are tiled.
pub(crate) struct Grid {
    /// Size and stride of the dimensions N, C, H and W. One that is not there has size 1.
    dimensions: [(usize, usize); 4],
    /// Number of images in a row, at least 1.
    columns: usize,
    /// Number of channels of the pixels.
    kept: usize,
}

impl Grid {
    /// Creates a grid of the image, or of the images with `columns` in a row, that an array has in the layout of `letters`, such as `CHW`:
    /// as many as `shape` has dimensions. Gray becomes RGB. Where it `is_opaque`, a fourth channel is left out.
    pub(crate) fn new(shape: &[usize], letters: &str, columns: usize, is_opaque: bool) -> Self {
        let mut dimensions = [(1, 0); 4];
        let mut stride = 1_usize;
        for (letter, size) in letters.bytes().zip(shape).rev() {
            if let Some(place) = b"NCHW".iter().position(|known| *known == letter) {
                dimensions[place] = (*size, stride);
            }
            stride = stride.saturating_mul(*size);
        }
        let [(images, _), (channels, _), ..] = dimensions;
        let kept = if channels == 1 || is_opaque { 3 } else { channels };
        Self { dimensions, columns: columns.clamp(1, images.max(1)), kept }
    }

    /// Returns the height and the width of all pixels.
    fn size(&self) -> (usize, usize) {
        let [(images, _), _, (height, _), (width, _)] = self.dimensions;
        (images.div_ceil(self.columns).saturating_mul(height), self.columns.saturating_mul(width))
    }

    /// Returns how many bytes the pixels occupy.
    pub(crate) fn bytes(&self) -> usize {
        let (height, width) = self.size();
        product([height, width, self.kept])
    }

    /// Returns how many bytes more the pixels occupy while they are made [colored](Pixels::in_color).
    pub(crate) fn color_bytes(&self) -> usize {
        if self.kept == 2 { self.bytes().saturating_mul(2) } else { 0 }
    }

    /// Returns how many bytes the pixels occupy once they are [a square](Pixels::squared).
    pub(crate) fn squared_bytes(&self) -> usize {
        let (height, width) = self.size();
        product([height.max(width), height.max(width), self.kept])
    }
}

/// Grid of videos: each frame has one frame of each of them.
pub(crate) struct Frames {
    shape: [usize; 5],
    rows: usize,
    columns: usize,
}

impl Frames {
    /// Creates a grid of videos of the shape (videos, time, channels, height, width). Its sides are powers of two.
    pub(crate) fn new(shape: [usize; 5]) -> Self {
        let rows = 1 << (shape[0].max(1).ilog2() / 2);
        Self { shape, rows, columns: shape[0].next_power_of_two() / rows }
    }

    /// Returns how many bytes all frames occupy.
    pub(crate) fn bytes(&self) -> usize {
        let [_, times, channels, height, width] = self.shape;
        product([self.rows, height, self.columns, width, channels, times])
    }
}

/// Returns a product, or the largest number where it is larger.
fn product<const N: usize>(factors: [usize; N]) -> usize {
    factors.into_iter().fold(1, usize::saturating_mul)
}

impl Pixels {
    /// Returns the pixels of an array.
    pub(crate) fn of(array: &Array, grid: &Grid) -> Self {
        let Grid { dimensions: [(images, n), (channels, c), (height, h), (width, w)], columns, kept } = *grid;
        let levels = levels(array);
        let (grid_height, grid_width) = grid.size();
        let mut pixels = Self::black(grid_height, grid_width, kept);
        for image in 0..images {
            let (top, left) = (image / columns * height, image % columns * width);
            for y in 0..height {
                for x in 0..width {
                    for channel in 0..kept {
                        let source = if channels == 1 { 0 } else { channel };
                        let from = image * n + source * c + y * h + x * w;
                        let to = ((top + y) * pixels.width + left + x) * kept + channel;
                        pixels.bytes[to] = levels[from];
                    }
                }
            }
        }
        pixels
    }

    /// Returns the frames of videos, one after the other, and how many there are.
    pub(crate) fn frames(array: &Array, frames: &Frames) -> (Self, usize) {
        let Frames { shape: [videos, times, channels, height, width], rows, columns } = *frames;
        let levels = levels(array);
        let (row, size) = (columns * width * channels, rows * height * columns * width * channels);
        let bytes = vec![0; size * times];
        let mut frame = Self { bytes, height: rows * height, width: columns * width, channels };
        let mut from = 0;
        for video in 0..videos {
            let (top, left) = (video / columns * height, video % columns * width);
            for time in 0..times {
                for channel in 0..channels {
                    for y in 0..height {
                        for x in 0..width {
                            let to = time * size + (top + y) * row + (left + x) * channels + channel;
                            frame.bytes[to] = levels[from];
                            from += 1;
                        }
                    }
                }
            }
        }
        (frame, times)
    }

    fn black(height: usize, width: usize, channels: usize) -> Self {
        Self { bytes: vec![0; height * width * channels], height, width, channels }
    }

    /// Returns the image in three channels or four: gray with opacity becomes red, green and blue with opacity.
    pub(crate) fn in_color(mut self) -> Self {
        if self.channels == 2 {
            let pixels = self.bytes.as_chunks::<2>().0;
            self.bytes = pixels.iter().flat_map(|&[gray, opacity]| [gray, gray, gray, opacity]).collect();
            self.channels = 4;
        }
        self
    }

    /// Returns the image with black below it or to its right, so that it is a square.
    pub(crate) fn squared(self) -> Self {
        let side = self.height.max(self.width);
        let mut square = Self::black(side, side, self.channels);
        let (from, to) = (self.width * self.channels, side * self.channels);
        for (source, target) in
            self.bytes.chunks_exact(from.max(1)).zip(square.bytes.chunks_exact_mut(to.max(1)))
        {
            target[..from].copy_from_slice(source);
        }
        square
    }

    /// Returns a PNG file of it, or why there is none.
    pub(crate) fn png(&self) -> Result<Vec<u8>, String> {
        let side = |length: usize| {
            u32::try_from(length).map_err(|_| format!("an image has {length} pixels on a side"))
        };
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, side(self.width)?, side(self.height)?);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_color(match self.channels {
            1 => png::ColorType::Grayscale,
            2 => png::ColorType::GrayscaleAlpha,
            4 => png::ColorType::Rgba,
            _ => png::ColorType::Rgb,
        });
        let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(&self.bytes));
        written.map_err(|error| error.to_string()).map(|()| file)
    }
}

/// Returns numbers as levels of brightness: bytes as they are, and others times 255, clipped.
fn levels(array: &Array) -> Vec<u8> {
    let scale: f32 = if array.kind() == Kind::U8 { 1.0 } else { 255.0 };
    let mut levels = Vec::with_capacity(array.len());
    // The conversion cuts off what is behind the point, and makes NaN 0.
    array.for_each(|number| levels.push((number as f32 * scale).clamp(0.0, 255.0) as u8));
    levels
}

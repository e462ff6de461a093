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

/// Meaning of the dimensions of an array, and how far apart in it the elements of each are.
struct Layout {
    /// Size and stride of the dimensions N, C, H and W. One that is not there has size 1.
    dimensions: [(usize, usize); 4],
}

impl Layout {
    /// `letters` are as many as `shape` has dimensions.
    fn new(shape: &[usize], letters: &str) -> Self {
        let mut dimensions = [(1, 0); 4];
        let mut stride = 1;
        for (letter, size) in letters.bytes().zip(shape).rev() {
            if let Some(place) = b"NCHW".iter().position(|known| *known == letter) {
                dimensions[place] = (*size, stride);
            }
            stride *= size;
        }
        Self { dimensions }
    }
}

impl Pixels {
    /// Returns the image, or the images tiled with `columns` in a row, that an array has in the layout of `letters`, such as `CHW`. Gray
    /// becomes RGB. Where it `is_opaque`, a fourth channel is left out.
    pub(crate) fn of(array: &Array, shape: &[usize], letters: &str, columns: usize, is_opaque: bool) -> Self {
        let Layout { dimensions: [(images, n), (channels, c), (height, h), (width, w)] } =
            Layout::new(shape, letters);
        let levels = levels(array);
        let columns = columns.clamp(1, images.max(1));
        let rows = images.div_ceil(columns);
        let kept = if channels == 1 || is_opaque { 3 } else { channels };
        let mut pixels = Self::black(rows * height, columns * width, kept);
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

    /// Returns about the most bytes that it takes to make an image, or the frames of a video, of an array: its levels; three channels
    /// where it is gray, and a grid whose last row is not full; and a copy.
    pub(crate) fn most_bytes(array: &Array) -> usize {
        array.len().saturating_mul(8)
    }

    /// Returns the frames of videos of the shape (videos, time, channels, height, width), one after the other, and how many there are.
    /// Several videos are tiled, in a grid whose sides are powers of two.
    pub(crate) fn frames(array: &Array, shape: [usize; 5]) -> (Self, usize) {
        let [videos, times, channels, height, width] = shape;
        let levels = levels(array);
        let places = videos.next_power_of_two();
        let rows = 1 << (videos.max(1).ilog2() / 2);
        let columns = places / rows;
        let mut frame = Self::black(rows * height, columns * width, channels);
        let (row, size) = (frame.width * channels, frame.bytes.len());
        frame.bytes = vec![0; size * times];
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

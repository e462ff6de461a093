//! `Image`: a picture.

use std::fmt;

/// Picture, as raw pixels or as a PNG, JPEG or GIF file. It is never encoded on the thread that collects it.
///
/// [`gray`](Self::gray), [`rgb`](Self::rgb), [`rgba`](Self::rgba), [`png`](Self::png), [`jpeg`](Self::jpeg) and
/// [`gif`](Self::gif) check their arguments. A sink refuses an image that does not fit.
///
/// ```
/// use forebay::{Image, Record};
///
/// let red = Image::rgb(2, 1, vec![255, 0, 0, 255, 0, 0])?;
/// let record = Record::with_value("samples.red", red).with_step(1);
///
/// let error = Image::rgb(2, 1, vec![255, 0, 0]).unwrap_err();
/// assert_eq!(error.to_string(), "the pixels of a 2 x 1 rgb8 image must be 6 bytes, got 3");
/// # Ok::<(), forebay::event::ImageError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Meaning of the bytes.
    pub format: ImageFormat,
    /// The file or the pixels. Pixels come row by row from the top, without padding.
    pub bytes: Vec<u8>,
}

/// Meaning of the bytes of an [`Image`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ImageFormat {
    /// A PNG file.
    Png,
    /// A JPEG file.
    Jpeg,
    /// A GIF file, which may have several pictures.
    Gif,
    /// One byte a pixel; 0 is black.
    Gray8,
    /// Three bytes a pixel: red, green, blue.
    Rgb8,
    /// Four bytes a pixel: red, green, blue, opacity.
    Rgba8,
}

impl ImageFormat {
    /// Returns the number of bytes of a pixel; `None` for a file.
    pub(crate) fn bytes_per_pixel(self) -> Option<u64> {
        match self {
            Self::Png | Self::Jpeg | Self::Gif => None,
            Self::Gray8 => Some(1),
            Self::Rgb8 => Some(3),
            Self::Rgba8 => Some(4),
        }
    }
}

impl fmt::Display for ImageFormat {
    /// Writes the name that JSON Lines has as well.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::Gif => "gif",
            Self::Gray8 => "gray8",
            Self::Rgb8 => "rgb8",
            Self::Rgba8 => "rgba8",
        })
    }
}

/// Reason why bytes are no [`Image`].
///
/// # Examples
///
/// ```
/// use forebay::Image;
///
/// let error = Image::gray(2, 2, vec![0, 1, 2]).unwrap_err();
/// assert_eq!(error.to_string(), "the pixels of a 2 x 2 gray8 image must be 4 bytes, got 3");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The number of bytes does not fit the size.
    #[error("the pixels of a {width} x {height} {format} image must be {expected} bytes, got {found}")]
    Length {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The format of the pixels.
        format: ImageFormat,
        /// The number of bytes that such an image has.
        expected: u64,
        /// The number of bytes that were given.
        found: u64,
    },
    /// An image has at least one pixel, and a PNG file allows no side above 2,147,483,647 pixels.
    #[error("the width and the height of an image must be 1..=2147483647 pixels, got {width} x {height}")]
    Size {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The bytes do not begin like a PNG file.
    #[error("an encoded image must be a PNG file, got {found} bytes that do not begin like one")]
    NotPng {
        /// The number of bytes that were given.
        found: u64,
    },
    /// The bytes are no JPEG file that tells its size.
    #[error("an encoded image must be a JPEG file with a frame header, got {found} bytes that have none")]
    NotJpeg {
        /// The number of bytes that were given.
        found: u64,
    },
    /// The bytes do not begin like a GIF file.
    #[error("an encoded image must be a GIF file, got {found} bytes that do not begin like one")]
    NotGif {
        /// The number of bytes that were given.
        found: u64,
    },
}

impl Image {
    /// Creates a gray image of one byte a pixel, row by row from the top; 0 is black.
    ///
    /// # Errors
    ///
    /// Returns [`ImageError::Length`] unless there are `width * height` bytes, and [`ImageError::Size`] where a side is 0 or too long.
    pub fn gray(width: u32, height: u32, pixels: impl Into<Vec<u8>>) -> Result<Self, ImageError> {
        Self { width, height, format: ImageFormat::Gray8, bytes: pixels.into() }.checked()
    }

    /// Creates an image of three bytes a pixel (red, green, blue), row by row from the top.
    ///
    /// # Errors
    ///
    /// Returns [`ImageError::Length`] unless there are `3 * width * height` bytes, and [`ImageError::Size`] where a side is 0 or too
    /// long.
    pub fn rgb(width: u32, height: u32, pixels: impl Into<Vec<u8>>) -> Result<Self, ImageError> {
        Self { width, height, format: ImageFormat::Rgb8, bytes: pixels.into() }.checked()
    }

    /// Creates an image of four bytes a pixel (red, green, blue, opacity), row by row from the top.
    ///
    /// # Errors
    ///
    /// Returns [`ImageError::Length`] unless there are `4 * width * height` bytes, and [`ImageError::Size`] where a side is 0 or too
    /// long.
    pub fn rgba(width: u32, height: u32, pixels: impl Into<Vec<u8>>) -> Result<Self, ImageError> {
        Self { width, height, format: ImageFormat::Rgba8, bytes: pixels.into() }.checked()
    }

    /// Creates an image from the bytes of a PNG file, and reads its size from them. The pixels are not decoded.
    ///
    /// # Errors
    ///
    /// Returns [`ImageError::NotPng`] for bytes without the head of a PNG file, and [`ImageError::Size`] where the head tells a side of
    /// 0 or a too long one.
    pub fn png(file: impl Into<Vec<u8>>) -> Result<Self, ImageError> {
        // The signature, and the first chunk: its length, its type, the width, the height. PNG specification, 5.2 and 11.2.1.
        const HEAD: &[u8; 16] = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR";
        let bytes = file.into();
        let side = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
        let (true, Some(width), Some(height)) = (bytes.starts_with(HEAD), side(16), side(20)) else {
            return Err(ImageError::NotPng { found: bytes.len() as u64 });
        };
        Self { width, height, format: ImageFormat::Png, bytes }.checked()
    }

    /// Creates an image from the bytes of a JPEG file, and reads its size from them. The pixels are not decoded.
    ///
    /// # Errors
    ///
    /// Returns [`ImageError::NotJpeg`] for bytes without the head of a frame, and [`ImageError::Size`] where that tells a side of 0.
    pub fn jpeg(file: impl Into<Vec<u8>>) -> Result<Self, ImageError> {
        let bytes = file.into();
        let Some((width, height)) = jpeg_size(&bytes) else {
            return Err(ImageError::NotJpeg { found: bytes.len() as u64 });
        };
        Self { width, height, format: ImageFormat::Jpeg, bytes }.checked()
    }

    /// Creates an image from the bytes of a GIF file, and reads its size from them. The pixels are not decoded. TensorBoard plays one
    /// of several pictures.
    ///
    /// # Errors
    ///
    /// Returns [`ImageError::NotGif`] for bytes without the head of a GIF file, and [`ImageError::Size`] where the head tells a side
    /// of 0.
    pub fn gif(file: impl Into<Vec<u8>>) -> Result<Self, ImageError> {
        let bytes = file.into();
        // The signature, the version, and the size of the screen: GIF89a specification, 17 and 18.
        let side = |at: usize| bytes.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes);
        let is_gif = bytes.starts_with(b"GIF87a") || bytes.starts_with(b"GIF89a");
        let (true, Some(width), Some(height)) = (is_gif, side(6), side(8)) else {
            return Err(ImageError::NotGif { found: bytes.len() as u64 });
        };
        Self { width: width.into(), height: height.into(), format: ImageFormat::Gif, bytes }.checked()
    }

    fn checked(self) -> Result<Self, ImageError> {
        self.check().map(|()| self)
    }

    /// Checks the size, and that there are as many pixels. A file is not read.
    pub(crate) fn check(&self) -> Result<(), ImageError> {
        let (width, height, format) = (self.width, self.height, self.format);
        let allowed = 1..=i32::MAX as u32;
        if !allowed.contains(&width) || !allowed.contains(&height) {
            return Err(ImageError::Size { width, height });
        }
        let Some(bytes_per_pixel) = format.bytes_per_pixel() else { return Ok(()) };
        // 2^31 times 2^31 pixels of 4 bytes: more than 64 bits hold, so it saturates.
        let expected = (u64::from(width) * u64::from(height)).saturating_mul(bytes_per_pixel);
        let found = self.bytes.len() as u64;
        if found != expected {
            return Err(ImageError::Length { width, height, format, expected, found });
        }
        Ok(())
    }
}

/// Returns the width and the height in the head of the first frame of a JPEG file: ITU-T T.81, B.1 and B.2.
fn jpeg_size(file: &[u8]) -> Option<(u32, u32)> {
    let number = |at: usize| file.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes);
    // The start of the image.
    if number(0)? != 0xffd8 {
        return None;
    }
    let mut at = 2;
    loop {
        // A marker: 0xff, as often as one likes, and a code.
        while *file.get(at)? == 0xff && *file.get(at + 1)? == 0xff {
            at += 1;
        }
        let (0xff, code) = (*file.get(at)?, *file.get(at + 1)?) else { return None };
        at += 2;
        match code {
            // The head of a frame: its length, the bits of a sample, the number of lines, and of samples in each.
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                return Some((number(at + 5)?.into(), number(at + 3)?.into()));
            }
            // Markers that stand alone.
            0x01 | 0xd0..=0xd7 => {}
            // The image begins again, ends, or has pixels before a frame.
            0x00 | 0xd8..=0xda => return None,
            // A segment, whose length counts itself.
            _ => at += usize::from(number(at)?.max(2)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_images_of_the_right_length_are_made_and_others_name_it() {
        for (bytes, image) in
            [(6, Image::gray as fn(_, _, Vec<u8>) -> _), (18, Image::rgb), (24, Image::rgba)]
        {
            let made = image(3, 2, vec![7; bytes]).unwrap();
            assert_eq!((made.width, made.height, made.bytes.len()), (3, 2, bytes));
            for wrong in [0, bytes - 1, bytes + 1] {
                let error = image(3, 2, vec![7; wrong]).unwrap_err();
                assert!(
                    error.to_string().ends_with(&format!("must be {bytes} bytes, got {wrong}")),
                    "{error}"
                );
            }
            let sizes = [(0, 2), (2, 0), (0, 0), (1 << 31, 1), (1, u32::MAX)];
            for (width, height) in sizes {
                assert_eq!(image(width, height, vec![]).unwrap_err(), ImageError::Size { width, height });
            }
            let most = i32::MAX as u32;
            assert!(matches!(image(most, most, vec![]), Err(ImageError::Length { .. })), "no overflow");
        }
    }

    #[test]
    fn the_size_of_a_png_is_read_and_what_is_none_is_refused() {
        let file = |width: u32, height: u32| {
            let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
            file.extend(width.to_be_bytes());
            file.extend(height.to_be_bytes());
            file
        };
        let image = Image::png(file(640, 2)).unwrap();
        assert_eq!((image.width, image.height, image.format), (640, 2, ImageFormat::Png));
        assert_eq!(Image::png(file(0, 2)).unwrap_err(), ImageError::Size { width: 0, height: 2 });
        for cut in [0, 1, 15, 16, 19, 23] {
            let error = Image::png(&file(640, 2)[..cut]).unwrap_err();
            assert_eq!(error, ImageError::NotPng { found: cut as u64 });
        }
        assert!(matches!(
            Image::png(*b"GIF89a\x01\0\x01\0 and so on and so on"),
            Err(ImageError::NotPng { .. })
        ));
    }

    #[test]
    fn the_sizes_of_jpeg_and_gif_files_are_read_and_what_is_none_is_refused() {
        let gif = *b"GIF89a\x80\x02\x02\0 and so on";
        let image = Image::gif(gif).unwrap();
        assert_eq!((image.width, image.height, image.format), (640, 2, ImageFormat::Gif));
        assert!(Image::gif(*b"GIF87a\x01\0\x01\0").is_ok());
        assert_eq!(Image::gif(*b"GIF89a\x00\0\x02\0").unwrap_err(), ImageError::Size { width: 0, height: 2 });
        assert_eq!(Image::gif(*b"GIF88a\x01\0\x01\0").unwrap_err(), ImageError::NotGif { found: 10 });

        // A comment whose text looks like a frame, a fill byte, tables, and a progressive frame of 3 x 640 pixels.
        let head = b"\xff\xd8\xff\xfe\0\x0b\xff\xc0\0\x0b\x08\0\x09\0\x09\xff\xff\xc4\0\x03\x01";
        let jpeg = [&head[..], b"\xff\xc2\0\x0b\x08\0\x03\x02\x80\x01\x01\x11\0"].concat();
        let image = Image::jpeg(&jpeg[..]).unwrap();
        assert_eq!((image.width, image.height, image.format), (640, 3, ImageFormat::Jpeg));
        for cut in [0, 1, 2, 3, 5, 8, 16, 20, 26] {
            let error = Image::jpeg(&jpeg[..cut]).unwrap_err();
            assert_eq!(error, ImageError::NotJpeg { found: cut as u64 });
        }
        for bad in [
            &b"\xff\xd8\xff\xda\0\x02"[..],
            b"\xff\xd8\xff\xfe\0\0\0",
            b"\xff\xd8\xff\x00",
            b"\xff\xd8\xff\xff\xff",
        ] {
            assert!(matches!(Image::jpeg(bad), Err(ImageError::NotJpeg { .. })), "{bad:?}");
        }
        assert!(matches!(Image::png(jpeg), Err(ImageError::NotPng { .. })));
    }
}

//! Writes a picture as SVG, or as PNG rendered from that same SVG with the bundled font and no other.

use std::sync::Arc;

use resvg::{
    tiny_skia::{Pixmap, Transform},
    usvg::{Options, Tree, fontdb::Database},
};

use super::text;

/// Pixels of the PNG for each pixel of the nominal size: sharp on dense screens, and 1,600 wide in print.
const PNG_SCALE: f32 = 2.0;

/// Renders an SVG document as PNG.
pub(crate) fn png(svg: &str) -> Result<Vec<u8>, String> {
    let mut fonts = Database::new();
    fonts.load_font_data(text::REGULAR.to_vec());
    fonts.load_font_data(text::BOLD.to_vec());
    fonts.set_sans_serif_family("Arimo");
    let options = Options {
        fontdb: Arc::new(fonts),
        ..Options::default()
    };
    let tree = Tree::from_str(svg, &options).map_err(|error| error.to_string())?;
    let size = tree.size().to_int_size();
    let scaled = |length: u32| (length as f32 * PNG_SCALE) as u32;
    let mut pixmap = Pixmap::new(scaled(size.width()), scaled(size.height())).ok_or("the picture is too large")?;
    resvg::render(&tree, Transform::from_scale(PNG_SCALE, PNG_SCALE), &mut pixmap.as_mut());
    pixmap.encode_png().map_err(|error| error.to_string())
}

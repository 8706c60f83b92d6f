// Package static holds the console's assets: fonts, style sheet, script and icons, embedded into the binary.
//
// It owns how they are put together and served: the parts of the style sheet and of the script are joined in the order of their names,
// each file is served under a URL that carries a hash of its content and may be cached for ever, and text is compressed once, at the
// start. It does not know any page. It imports nothing of Ambit.
package static

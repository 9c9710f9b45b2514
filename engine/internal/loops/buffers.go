//go:build linux

package loops

// bufferPool keeps buffers for what a destination did not take, in three
// sizes. It belongs to one loop.
type bufferPool struct {
	free [3][][]byte
}

var bufferSizes = [3]int{4 << 10, 16 << 10, readSize}

// hold returns a copy of p.
func (b *bufferPool) hold(p []byte) []byte {
	class := 0
	for bufferSizes[class] < len(p) {
		class++
	}
	var buf []byte
	if n := len(b.free[class]); n > 0 {
		buf = b.free[class][n-1]
		b.free[class] = b.free[class][:n-1]
	} else {
		buf = make([]byte, bufferSizes[class])
	}
	return buf[:copy(buf[:cap(buf)], p)]
}

// put takes back a buffer that hold gave.
func (b *bufferPool) put(buf []byte) {
	for class, size := range bufferSizes {
		if cap(buf) == size && len(b.free[class]) < spareBuffers {
			b.free[class] = append(b.free[class], buf)
		}
	}
}

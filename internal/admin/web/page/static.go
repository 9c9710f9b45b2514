package page

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

//go:embed templates static
var embedded embed.FS

// files are the static files.
type files struct {
	byAddress map[string]file   // by the last part of the address
	addresses map[string]string // by the name in the source
}

type file struct {
	data      []byte
	mediaType string
}

var mediaTypes = map[string]string{
	".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
	".LICENSE": "text/plain; charset=utf-8",
}

// newFiles reads the embedded files. An error would be one of the build: it panics.
func newFiles() files {
	f := files{map[string]file{}, map[string]string{}}
	err := fs.WalkDir(embedded, "static", func(at string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := embedded.ReadFile(at)
		if err != nil {
			return err
		}
		name, ext := path.Base(at), path.Ext(at)
		mediaType, ok := mediaTypes[ext]
		if !ok {
			return nil // the list of checksums
		}
		sum := sha256.Sum256(data)
		hashed := strings.TrimSuffix(name, ext) + "-" + hex.EncodeToString(sum[:8]) + ext
		f.byAddress[hashed] = file{data, mediaType}
		f.addresses[name] = "static/" + hashed
		return nil
	})
	if err != nil {
		panic(err)
	}
	return f
}

// address is where a file is served.
func (f files) address(name string) (string, error) {
	a, ok := f.addresses[name]
	if !ok {
		return "", fmt.Errorf("unknown static file %s", name)
	}
	return a, nil
}

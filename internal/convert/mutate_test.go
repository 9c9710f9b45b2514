package convert

import (
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/txlb/txlb/config"
)

// Sources that were cut, joined and garbled never crash, and give an error or a valid
// document.
func TestGarbledSources(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, d := range dialects {
		var all [][]byte
		for _, file := range d.files(t) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, text)
		}
		for range 1500 {
			source := garbled(r, all)
			start := time.Now()
			result, err := d.public("garbled", source)
			if took := time.Since(start); took > time.Second {
				t.Logf("%v for\n%s", took, source)
			}
			if err != nil {
				continue
			}
			if _, problems := config.Parse("result", result.Document); problems.Err() != nil {
				t.Fatalf("%v\n%s\nof\n%s", problems, result.Document, source)
			}
		}
	}
}

func garbled(r *rand.Rand, all [][]byte) []byte {
	source := append([]byte(nil), all[r.IntN(len(all))]...)
	for range 1 + r.IntN(6) {
		i := r.IntN(len(source) + 1)
		switch r.IntN(5) {
		case 0:
			source = source[:i]
		case 1:
			other := all[r.IntN(len(all))]
			j := r.IntN(len(other))
			source = append(source[:i:i], other[j:]...)
		case 2:
			j := min(len(source), i+r.IntN(20))
			source = append(source[:i:i], source[j:]...)
		case 3:
			source = append(source[:i:i], append([]byte{byte(r.IntN(256))}, source[i:]...)...)
		case 4:
			letters := "\"'\\{};#$ \n@:/-!|0"
			source = append(source[:i:i], append([]byte{letters[r.IntN(len(letters))]}, source[i:]...)...)
		}
	}
	return source
}

package txlb

import (
	"testing"

	"github.com/txlb/txlb/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

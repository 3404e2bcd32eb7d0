package helper

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"testing"
	"testing/fstest"

	"github.com/klauspost/compress/zstd"
)

func TestABuildThatCarriesNothingSaysWhatItSaidBefore(t *testing.T) {
	before := errors.New("there is none beside the program")
	c := Carried{FS: fstest.MapFS{}}
	for _, architectures := range [][]string{nil, {AMD64}, {AMD64, ARM64}} {
		if found, err := c.All(architectures, before); !errors.Is(err, before) || found != nil {
			t.Errorf("for %q: %v, %v", architectures, found, err)
		}
	}
	if _, err := c.Find(AMD64); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the error is %v", err)
	}
}

func TestWhatIsCarriedIsThereUntilClose(t *testing.T) {
	program := make([]byte, 64)
	copy(program, "\x7fELF\x02\x01\x01")
	program[16], program[18], program[20], program[52], program[54], program[58] = 2, 62, 1, 64, 56, 64
	var packed bytes.Buffer
	z, err := zstd.NewWriter(&packed)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = z.Write(program)
	_ = z.Close()
	c := Carried{FS: fstest.MapFS{"carried/nametag-linux-amd64.zst": {Data: packed.Bytes()}}}
	found, err := c.All(nil, errors.New("nothing"))
	if err != nil || len(found) != 1 || found[0].Architecture != AMD64 {
		t.Fatalf("%+v, %v", found, err)
	}
	if b, err := os.ReadFile(found[0].Path); err != nil || !bytes.Equal(b, program) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

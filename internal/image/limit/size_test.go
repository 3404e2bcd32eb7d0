package limit

import "testing"

func TestASizeIsReadAsItIsShown(t *testing.T) {
	for text, want := range map[string]Size{"4G": 4 << 30, "4GiB": 4 << 30, "512m": 512 << 20, "1048576": 1 << 20, "3": 3, "7KB": 7 << 10, "1T": 1 << 40} {
		var s, again Size
		if err := s.Set(text); err != nil || s != want {
			t.Errorf("%s: %d, %v", text, s, err)
		}
		if err := again.Set(s.String()); err != nil || again != s {
			t.Errorf("%s is shown as %s, which is %d, %v", text, s.String(), again, err)
		}
	}
	for _, text := range []string{"", "0", "-1", "G", "1.5G", "9223372036854775807T", "much"} {
		if s := Size(5); s.Set(text) == nil || s != 5 {
			t.Errorf("%q was taken: %d", text, s)
		}
	}
}

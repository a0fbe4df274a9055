package snapshot

import "testing"

// ways are those that this system has.
func ways(t testing.TB) []way {
	if works() == scanned {
		return []way{copied, forgotten, scanned}
	}
	// Either the kernel does not answer (before Linux 6.7, or without /proc), or
	// what is made of its answers is wrong.
	im, err := newImage(make([]byte, 8*pageSize), scanned)
	if err != nil {
		t.Fatal(err)
	}
	defer im.Close()
	m, err := im.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if m.copyBack(len(im.data)) {
		t.Fatal("the kernel says which pages were written, and yet memories are not restored by that")
	}
	t.Log("this kernel has no PAGEMAP_SCAN (Linux 6.7): images are mapped and forgotten")
	return []way{copied, forgotten}
}

// Nothing stays mapped or open when images and memories are closed, and their
// number is bounded without anybody noticing but by the time it takes.
func TestMappingsAreBoundedAndFreed(t *testing.T) {
	if works() == copied {
		t.Fatal("images cannot be mapped here")
	}
	before, open := areas.Load(), files.Load()
	data := picture(small+pageSize, 5)
	var images []*Image
	var memories []*Memory
	for range maxFiles + 3 {
		im, err := New(data)
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, im)
	}
	if n := files.Load(); n > maxFiles {
		t.Errorf("%d memory files are open", n)
	}
	if last := images[len(images)-1]; last.way != copied {
		t.Errorf("one image more than is mapped is %v", last.way)
	}
	for i := 0; areas.Load() <= maxAreas()-memoryAreas; i++ {
		m, err := images[i%maxFiles].Open()
		if err != nil {
			t.Fatal(err)
		}
		memories = append(memories, m)
	}
	m, err := images[0].Open()
	if err != nil || m.mapped || string(m.Bytes(0, 1<<30)) != string(data) {
		t.Errorf("one memory more than is mapped: mapped %v, or not the image (%v)", m.mapped, err)
	}
	for _, m := range append(memories, m) {
		m.Close()
	}
	for _, im := range images {
		im.Close()
	}
	if areas.Load() != before || files.Load() != open {
		t.Errorf("%d areas and %d files before, %d and %d after all was closed", before, open, areas.Load(), files.Load())
	}
}

package schema

// Hasten has checks end after a fraction of the work that they may take.
func (s *Schema) Hasten(fraction int) { s.work = maxWork / fraction }

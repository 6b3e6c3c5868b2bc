CREATE TABLE IF NOT EXISTS stock (
  book VARCHAR(32) PRIMARY KEY,
  available INT NOT NULL CHECK (available >= 0)
);
INSERT IGNORE INTO stock VALUES
  ('comedy', 1000000), ('tempest', 1000000), ('hamlet', 1000000), ('lear', 1000000), ('macbeth', 1000000), ('othello', 0);
CREATE TABLE IF NOT EXISTS reservations (
  order_id CHAR(36) PRIMARY KEY,
  book VARCHAR(32) NOT NULL,
  quantity INT NOT NULL,
  reserved DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)
);
